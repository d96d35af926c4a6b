"""A sweep: every trial is a process of a pool, and has a run of its own."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

import joblib
from training import STEPS, begin, done, step


def trial(number: int) -> None:
    with begin(config={"trial": number}) or nullcontext():  # the pool outlives a trial, and takes its exception
        for count in range(STEPS):
            step(number, count)
    done(number)


if __name__ == "__main__":
    if sys.argv[1] == "joblib":
        joblib.Parallel(n_jobs=2)(joblib.delayed(trial)(number) for number in range(2))
    elif sys.argv[1] == "futures":
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(trial, range(2)))
    else:
        workers = [multiprocessing.get_context("spawn").Process(target=trial, args=(number,)) for number in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        sys.exit(max(abs(worker.exitcode or 0) for worker in workers))
