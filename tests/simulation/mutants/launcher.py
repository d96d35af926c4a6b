"""Mutants of ``pluto_dist/launcher``: what `pluto-dist run` does beside the workers."""

from __future__ import annotations

from simulation.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        "launcher-answers-no-claims",
        "launcher/supervisor.py",
        before="            self._answer_claims(client, self.run)\n",
        after="",
        breaks="A launch under a launcher of ours answers a claim on its run.",
    ),
    Mutant(
        "last-report-unread",
        "launcher/supervisor.py",
        before="            self._read_reports(client)\n            if status",
        after="            if status",
        breaks="The launcher ends also a run that began after its last look, or in its last attempt.",
    ),
    Mutant(
        "launchers-end-dropped",
        "launcher/supervisor.py",
        before="""\
        except (TrackerUnavailableError, UnexpectedAnswerError) as error:
            outbox.enqueue(end)
""",
        after="""\
        except (TrackerUnavailableError, UnexpectedAnswerError) as error:
""",
        breaks="The end that a launcher cannot report is kept.",
    ),
)
