/* A fake libnvidia-ml.so.1: NVIDIA's management library for machines without a GPU.
 *
 * The real pynvml loads it as it loads NVIDIA's. All values come from a text file, the profile, which
 * the environment variable FAKE_NVML names. It shows nothing about the values, the timing and the
 * crashes of a real driver.
 *
 * The profile: one KEY=VALUE a line; '#' starts a comment line; of equal keys the last one counts.
 *
 *   include=FILE              the lines of FILE, a path relative to the including file
 *   driver= nvml= cuda= count= confidential=               values of the whole system
 *   dev.<i>.<key>=            a value of device i; dev.*.<key>= of all devices without one
 *   <function>.rc=            the function returns this code (dev.<i>.<function>.rc= for one device)
 *   <function>.ms=            the function sleeps this many milliseconds before it returns
 *
 * Without a line for its value a function returns NOT_SUPPORTED. Before nvmlInit and after the last
 * nvmlShutdown every function returns UNINITIALIZED.
 *
 * Each call appends "PID FUNCTION DEVICE" to the file that FAKE_NVML_LOG names; the device is -1 for
 * functions without one.
 *
 * Devices are numbers below 64. A MIG instance is a device too, with a number beyond `count`:
 * dev.0.mig.1=41 means that slot 1 of device 0 is device 41.
 *
 * An old driver lacks functions: compile with -D<function>=fake_absent_1, and the symbol is gone.
 * Against NVIDIA's own header (package nvidia-nvml-dev): -DUSE_NVML_H -DNVML_NO_UNVERSIONED_FUNC_DEFS.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- types: those of nvml.h, as far as the functions below need them ---- */

#ifdef USE_NVML_H
#include <nvml.h>
typedef nvmlReturn_t Code;
#else
typedef int Code;
typedef struct dev *nvmlDevice_t;
typedef unsigned nvmlDeviceArchitecture_t;
typedef int nvmlClockType_t;
typedef int nvmlComputeMode_t;
typedef int nvmlEccCounterType_t;
typedef int nvmlEnableState_t;
typedef int nvmlGpuP2PCapsIndex_t;
typedef int nvmlGpuP2PStatus_t;
typedef int nvmlGpuTopologyLevel_t;
typedef int nvmlMemoryErrorType_t;
typedef int nvmlTemperatureSensors_t;
typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;
typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;
typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;
typedef struct {
    unsigned gpu, memory;
} nvmlUtilization_t;
typedef struct {
    unsigned environment, ccFeature, devToolsMode;
} nvmlConfComputeSystemState_t;
typedef struct {
    unsigned pid;
    unsigned long long usedGpuMemory;
    unsigned gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;
typedef struct {
    unsigned version;
    unsigned char clusterUuid[16];
    int status;
    unsigned cliqueId;
    unsigned char state;
    unsigned healthMask;
} nvmlGpuFabricInfoV_t;
#endif

enum { /* nvmlReturn_t */
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    ARGUMENT_VERSION_MISMATCH = 25,
};

#define DEVICES 64
#define LINES 4096

static int handles[DEVICES]; /* a device's handle is the address of its element */
static int initialized;      /* inits minus shutdowns */

/* ---- the profile ---- */

static struct {
    char *key, *value;
} lines[LINES];
static int line_count = -1; /* not loaded yet */

static void load(const char *path) {
    char line[1024], beside[2048];
    FILE *file = fopen(path, "r");
    while (file && line_count < LINES && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        char *equals = strchr(line, '=');
        if (!equals || *line == '#')
            continue;
        *equals = 0;
        if (!strcmp(line, "include")) {
            const char *slash = strrchr(path, '/');
            int folder = slash && equals[1] != '/' ? (int)(slash - path + 1) : 0;
            snprintf(beside, sizeof beside, "%.*s%s", folder, path, equals + 1);
            load(beside);
        } else if (line_count < LINES) {
            lines[line_count].key = strdup(line);
            lines[line_count++].value = strdup(equals + 1);
        }
    }
    if (file)
        fclose(file);
}

/* A value of the system, or NULL. */
static const char *system_value(const char *key) {
    if (line_count < 0) {
        const char *path = getenv("FAKE_NVML");
        line_count = 0;
        if (path)
            load(path);
    }
    for (int i = line_count; i-- > 0;)
        if (!strcmp(lines[i].key, key))
            return lines[i].value;
    return NULL;
}

/* A value of device i: its own, else that of all devices, else NULL. */
static const char *device_value(int i, const char *key) {
    char full[256];
    snprintf(full, sizeof full, "dev.%d.%s", i, key);
    const char *value = system_value(full);
    if (value)
        return value;
    snprintf(full, sizeof full, "dev.*.%s", key);
    return system_value(full);
}

/* ---- the start of every call: log, stall, forced code ---- */

static Code before(const char *function, int device) {
    char key[256];
    const char *value, *log = getenv("FAKE_NVML_LOG");
    FILE *file = log ? fopen(log, "a") : NULL;
    if (file) {
        fprintf(file, "%d %s %d\n", (int)getpid(), function, device);
        fclose(file);
    }
    snprintf(key, sizeof key, "%s.ms", function);
    if ((value = system_value(key)))
        usleep(1000u * (unsigned)atoi(value));
    snprintf(key, sizeof key, "%s.rc", function);
    value = device >= 0 ? device_value(device, key) : NULL;
    if (!value)
        value = system_value(key);
    if (value)
        return (Code)atoi(value);
    return (Code)(initialized || !strncmp(function, "nvmlInit", 8) ? OK : UNINITIALIZED);
}

static int index_of(nvmlDevice_t handle) { return (int)((int *)handle - handles); }

static nvmlDevice_t handle_of(int i) { return (nvmlDevice_t)&handles[i]; }

static Code copy_text(const char *value, char *out, unsigned size) {
    if (!value)
        return (Code)NOT_SUPPORTED;
    if (strlen(value) >= size)
        return (Code)INSUFFICIENT_SIZE;
    strcpy(out, value);
    return (Code)OK;
}

/* ---- macros: the first lines of a function, and functions that only look one value up ---- */

#define ENTER(device)                                                                              \
    Code code_ = before(__func__, device);                                                         \
    if (code_)                                                                                     \
    return code_

/* Turns the handle `handle` into the number `i`. */
#define ENTER_DEVICE                                                                               \
    int i = index_of(handle);                                                                      \
    if (i < 0 || i >= DEVICES)                                                                     \
        return (Code)INVALID_ARGUMENT;                                                             \
    ENTER(i)

/* Returns the number that the profile has for `key`. */
#define ANSWER_NUMBER(type, key)                                                                   \
    const char *value = device_value(i, key);                                                      \
    if (!value)                                                                                    \
        return (Code)NOT_SUPPORTED;                                                                \
    *out = (type)strtoull(value, NULL, 0);                                                         \
    return (Code)OK

#define NUMBER_OF_DEVICE(function, type, key)                                                      \
    Code function(nvmlDevice_t handle, type *out) {                                                \
        ENTER_DEVICE;                                                                              \
        ANSWER_NUMBER(type, key);                                                                  \
    }

#define TEXT_OF_DEVICE(function, key)                                                              \
    Code function(nvmlDevice_t handle, char *out, unsigned size) {                                 \
        ENTER_DEVICE;                                                                              \
        return copy_text(device_value(i, key), out, size);                                         \
    }

#define TEXT_OF_SYSTEM(function, key)                                                              \
    Code function(char *out, unsigned size) {                                                      \
        ENTER(-1);                                                                                 \
        return copy_text(system_value(key), out, size);                                            \
    }

/* ---- the library and the system ---- */

Code nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    ENTER(-1);
    initialized++;
    return (Code)OK;
}

Code nvmlInit_v2(void) {
    ENTER(-1);
    initialized++;
    return (Code)OK;
}

Code nvmlShutdown(void) {
    ENTER(-1);
    initialized--;
    return (Code)OK;
}

const char *nvmlErrorString(Code code) {
    static char text[32];
    snprintf(text, sizeof text, "fake error %d", (int)code);
    return text;
}

TEXT_OF_SYSTEM(nvmlSystemGetDriverVersion, "driver")
TEXT_OF_SYSTEM(nvmlSystemGetNVMLVersion, "nvml")

static Code cuda_version(int *out) {
    const char *value = system_value("cuda");
    if (!value)
        return (Code)NOT_SUPPORTED;
    *out = atoi(value);
    return (Code)OK;
}

Code nvmlSystemGetCudaDriverVersion(int *out) {
    ENTER(-1);
    return cuda_version(out);
}

Code nvmlSystemGetCudaDriverVersion_v2(int *out) {
    ENTER(-1);
    return cuda_version(out);
}

Code nvmlSystemGetConfComputeState(nvmlConfComputeSystemState_t *out) {
    ENTER(-1);
    const char *value = system_value("confidential");
    if (!value)
        return (Code)NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    out->ccFeature = (unsigned)atoi(value);
    return (Code)OK;
}

/* ---- handles ---- */

static unsigned device_count(void) {
    const char *value = system_value("count");
    return value ? (unsigned)atoi(value) : 0;
}

Code nvmlDeviceGetCount_v2(unsigned *out) {
    ENTER(-1);
    *out = device_count();
    return (Code)OK;
}

Code nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out) {
    ENTER((int)index);
    if (index >= device_count())
        return (Code)INVALID_ARGUMENT;
    *out = handle_of((int)index);
    return (Code)OK;
}

/* The first device whose own value of `key` is `wanted`. */
static Code handle_by(const char *key, const char *wanted, nvmlDevice_t *out) {
    for (int i = 0; i < DEVICES; i++) {
        char full[64];
        snprintf(full, sizeof full, "dev.%d.%s", i, key);
        const char *value = system_value(full);
        if (value && !strcmp(value, wanted)) {
            *out = handle_of(i);
            return (Code)OK;
        }
    }
    return (Code)NOT_FOUND;
}

Code nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out) {
    ENTER(-1);
    return handle_by("uuid", uuid, out);
}

Code nvmlDeviceGetHandleByPciBusId_v2(const char *id, nvmlDevice_t *out) {
    ENTER(-1);
    return handle_by("pci", id, out);
}

Code nvmlDeviceGetIndex(nvmlDevice_t handle, unsigned *out) {
    ENTER_DEVICE;
    *out = (unsigned)i;
    return (Code)OK;
}

/* ---- one value each ---- */

TEXT_OF_DEVICE(nvmlDeviceGetName, "name")
TEXT_OF_DEVICE(nvmlDeviceGetUUID, "uuid")
TEXT_OF_DEVICE(nvmlDeviceGetSerial, "serial")
TEXT_OF_DEVICE(nvmlDeviceGetBoardPartNumber, "board")
TEXT_OF_DEVICE(nvmlDeviceGetVbiosVersion, "vbios")

NUMBER_OF_DEVICE(nvmlDeviceGetMinorNumber, unsigned, "minor")
NUMBER_OF_DEVICE(nvmlDeviceGetArchitecture, nvmlDeviceArchitecture_t, "arch")
NUMBER_OF_DEVICE(nvmlDeviceGetNumGpuCores, unsigned, "cores")
NUMBER_OF_DEVICE(nvmlDeviceGetNumaNodeId, unsigned, "numa")
NUMBER_OF_DEVICE(nvmlDeviceGetPersistenceMode, nvmlEnableState_t, "persistence")
NUMBER_OF_DEVICE(nvmlDeviceGetComputeMode, nvmlComputeMode_t, "compute_mode")
NUMBER_OF_DEVICE(nvmlDeviceGetEnforcedPowerLimit, unsigned, "power.limit_mw")
NUMBER_OF_DEVICE(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, "power.default_mw")
NUMBER_OF_DEVICE(nvmlDeviceGetPowerUsage, unsigned, "power.draw_mw")
NUMBER_OF_DEVICE(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, "pcie.gen")
NUMBER_OF_DEVICE(nvmlDeviceGetCurrPcieLinkWidth, unsigned, "pcie.width")
NUMBER_OF_DEVICE(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, "pcie.gen_max")
NUMBER_OF_DEVICE(nvmlDeviceGetMaxPcieLinkWidth, unsigned, "pcie.width_max")
NUMBER_OF_DEVICE(nvmlDeviceGetMaxMigDeviceCount, unsigned, "mig.max")
NUMBER_OF_DEVICE(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, "throttle")
NUMBER_OF_DEVICE(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, "throttle")

Code nvmlDeviceGetTemperature(nvmlDevice_t handle, nvmlTemperatureSensors_t sensor, unsigned *out) {
    ENTER_DEVICE;
    (void)sensor;
    ANSWER_NUMBER(unsigned, "temp");
}

Code nvmlDeviceGetMaxClockInfo(nvmlDevice_t handle, nvmlClockType_t clock, unsigned *out) {
    ENTER_DEVICE;
    char key[32];
    snprintf(key, sizeof key, "clock.%d", (int)clock);
    ANSWER_NUMBER(unsigned, key);
}

/* ---- several values in one ---- */

Code nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, nvmlPciInfo_t *out) {
    ENTER_DEVICE;
    const char *value = device_value(i, "pci");
    if (!value)
        return (Code)NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    copy_text(value, out->busId, sizeof out->busId);
    if (strlen(value) > 4) /* the legacy form has a domain of four digits, not eight */
        copy_text(value + 4, out->busIdLegacy, sizeof out->busIdLegacy);
    sscanf(value, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    return (Code)OK;
}

static Code memory(int i, unsigned long long *total, unsigned long long *free, unsigned long long *used) {
    const char *all = device_value(i, "mem.total"), *taken = device_value(i, "mem.used");
    if (!all)
        return (Code)NOT_SUPPORTED;
    *total = strtoull(all, NULL, 0);
    *used = taken ? strtoull(taken, NULL, 0) : 0;
    *free = *total - *used;
    return (Code)OK;
}

Code nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *out) {
    ENTER_DEVICE;
    return memory(i, &out->total, &out->free, &out->used);
}

Code nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, nvmlMemory_v2_t *out) {
    ENTER_DEVICE;
    if (out->version != (sizeof *out | (2u << 24)))
        return (Code)ARGUMENT_VERSION_MISMATCH;
    out->reserved = 0;
    return memory(i, &out->total, &out->free, &out->used);
}

Code nvmlDeviceGetCudaComputeCapability(nvmlDevice_t handle, int *major, int *minor) {
    ENTER_DEVICE;
    const char *value = device_value(i, "cc");
    return (Code)(value && sscanf(value, "%d.%d", major, minor) == 2 ? OK : NOT_SUPPORTED);
}

Code nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, nvmlUtilization_t *out) {
    ENTER_DEVICE;
    const char *value = device_value(i, "util");
    return (Code)(value && sscanf(value, "%u,%u", &out->gpu, &out->memory) == 2 ? OK : NOT_SUPPORTED);
}

Code nvmlDeviceGetEccMode(nvmlDevice_t handle, nvmlEnableState_t *current, nvmlEnableState_t *pending) {
    ENTER_DEVICE;
    const char *value = device_value(i, "ecc");
    if (!value)
        return (Code)NOT_SUPPORTED;
    *current = *pending = (nvmlEnableState_t)atoi(value);
    return (Code)OK;
}

Code nvmlDeviceGetTotalEccErrors(nvmlDevice_t handle, nvmlMemoryErrorType_t type,
                                 nvmlEccCounterType_t counter, unsigned long long *out) {
    ENTER_DEVICE;
    (void)counter;
    char key[32];
    snprintf(key, sizeof key, "ecc.errors.%d", (int)type);
    ANSWER_NUMBER(unsigned long long, key);
}

Code nvmlDeviceGetRemappedRows(nvmlDevice_t handle, unsigned *corrected, unsigned *uncorrected,
                               unsigned *pending, unsigned *failed) {
    ENTER_DEVICE;
    const char *value = device_value(i, "remapped");
    int found = value ? sscanf(value, "%u,%u,%u,%u", corrected, uncorrected, pending, failed) : 0;
    return (Code)(found == 4 ? OK : NOT_SUPPORTED);
}

/* The profile has CPU lists ("0-47,96-143"), NVML returns a bit mask in words of unsigned long. */
Code nvmlDeviceGetCpuAffinity(nvmlDevice_t handle, unsigned words, unsigned long *out) {
    ENTER_DEVICE;
    const char *value = device_value(i, "cpus");
    if (!value)
        return (Code)NOT_SUPPORTED;
    memset(out, 0, words * sizeof *out);
    for (char *end; *value; value = *end ? end + 1 : end) {
        unsigned first = (unsigned)strtoul(value, &end, 10), last = first;
        if (*end == '-')
            last = (unsigned)strtoul(end + 1, &end, 10);
        for (; first <= last && first < words * 8 * sizeof *out; first++)
            out[first / 64] |= 1ul << (first % 64);
    }
    return (Code)OK;
}

/* ---- processes: the number of them, or INSUFFICIENT_SIZE with the number that is needed ---- */

static Code processes(int i, const char *key, unsigned *count, nvmlProcessInfo_t *out) {
    const char *value = device_value(i, key);
    unsigned found = 0, room = *count;
    for (char *end; value && *value; value = *end == ',' ? end + 1 : end, found++) {
        unsigned pid = (unsigned)strtoul(value, &end, 10);
        if (end == value) /* not a number */
            break;
        if (out && found < room) {
            memset(&out[found], 0, sizeof *out);
            out[found].pid = pid;
        }
    }
    *count = found;
    return (Code)(found > room || (found && !out) ? INSUFFICIENT_SIZE : OK);
}

Code nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t handle, unsigned *count,
                                             nvmlProcessInfo_t *out) {
    ENTER_DEVICE;
    return processes(i, "pids", count, out);
}

Code nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t handle, unsigned *count,
                                              nvmlProcessInfo_t *out) {
    ENTER_DEVICE;
    return processes(i, "gpids", count, out);
}

/* ---- MIG ---- */

Code nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned *current, unsigned *pending) {
    ENTER_DEVICE;
    const char *value = device_value(i, "mig");
    if (!value)
        return (Code)NOT_SUPPORTED;
    *current = *pending = (unsigned)atoi(value);
    return (Code)OK;
}

Code nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned slot, nvmlDevice_t *out) {
    ENTER_DEVICE;
    char key[32];
    snprintf(key, sizeof key, "mig.%u", slot);
    const char *value = device_value(i, key);
    if (!value)
        return (Code)NOT_FOUND;
    *out = handle_of(atoi(value));
    return (Code)OK;
}

/* ---- links, fabric and topology ---- */

Code nvmlDeviceGetNvLinkState(nvmlDevice_t handle, unsigned link, nvmlEnableState_t *out) {
    ENTER_DEVICE;
    const char *count = device_value(i, "nvlink.links"), *up = device_value(i, "nvlink.up");
    if (!count)
        return (Code)NOT_SUPPORTED;
    if (link >= (unsigned)atoi(count))
        return (Code)INVALID_ARGUMENT;
    *out = (nvmlEnableState_t)(!up || link < (unsigned)atoi(up));
    return (Code)OK;
}

Code nvmlDeviceGetNvLinkVersion(nvmlDevice_t handle, unsigned link, unsigned *out) {
    ENTER_DEVICE;
    (void)link;
    ANSWER_NUMBER(unsigned, "nvlink.version");
}

Code nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t handle, nvmlGpuFabricInfoV_t *out) {
    ENTER_DEVICE;
    const char *state = device_value(i, "fabric.state"), *clique = device_value(i, "fabric.clique");
    const char *cluster = device_value(i, "fabric.cluster"); /* hexadecimal */
    if (!state)
        return (Code)NOT_SUPPORTED;
    out->state = (unsigned char)atoi(state);
    out->cliqueId = clique ? (unsigned)atoi(clique) : 0;
    out->status = 0;
    memset(out->clusterUuid, 0, sizeof out->clusterUuid);
    for (int k = 0; cluster && k < 16 && cluster[2 * k]; k++) {
        unsigned byte;
        sscanf(cluster + 2 * k, "%2x", &byte);
        out->clusterUuid[k] = (unsigned char)byte;
    }
    return (Code)OK;
}

/* A value of a pair of devices: dev.<a>.<key>.<b>, else dev.<a>.<key>. */
static Code pair(nvmlDevice_t a, nvmlDevice_t b, const char *function, const char *key, int *out) {
    int i = index_of(a);
    Code code = before(function, i);
    if (code)
        return code;
    char with_other[64];
    snprintf(with_other, sizeof with_other, "%s.%d", key, index_of(b));
    const char *value = device_value(i, with_other);
    if (!value)
        value = device_value(i, key);
    if (!value)
        return (Code)NOT_SUPPORTED;
    *out = atoi(value);
    return (Code)OK;
}

Code nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t a, nvmlDevice_t b, nvmlGpuTopologyLevel_t *out) {
    int value = 0;
    Code code = pair(a, b, __func__, "topo", &value);
    *out = (nvmlGpuTopologyLevel_t)value;
    return code;
}

Code nvmlDeviceGetP2PStatus(nvmlDevice_t a, nvmlDevice_t b, nvmlGpuP2PCapsIndex_t caps,
                            nvmlGpuP2PStatus_t *out) {
    int value = 0;
    (void)caps;
    Code code = pair(a, b, __func__, "p2p", &value);
    *out = (nvmlGpuP2PStatus_t)value;
    return code;
}
