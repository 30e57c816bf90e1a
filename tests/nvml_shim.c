/* A libnvidia-ml.so.1 with what the nvml driver calls. The environment, read at each call, says what it answers:
 *
 * SHIM_GPUS      how many GPUs there are; without it, the kernel module is not loaded
 * SHIM_SUPPORTS  what each supports: fields as id.scope, and usage, energy, temperature, clocks, events, throttle
 * SHIM_VALUES    what=number, for what is listed there: it answers with that
 * SHIM_FAIL      function=code or function.gpu=code, or a field for the function: it fails with that error
 * SHIM_NAME, SHIM_CAPABILITY, SHIM_MIG, SHIM_PROCESSES
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };
enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 };
enum { TOTAL_ENERGY = 83, POWER_AVERAGE = 185 };

typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    int type, result;
    union {
        unsigned narrow;
        unsigned long long wide;
    } value;
} FieldValue;

typedef struct {
    unsigned pid;
    unsigned long long memory;
    unsigned instances[2];
} Process;

static int boards[8] = {0, 1, 2, 3, 4, 5, 6, 7};

static long long setting(const char *name, long long otherwise) {
    const char *text = getenv(name);
    return text ? atoll(text) : otherwise;
}

static const char *listed(const char *list, const char *word) {
    const char *text = getenv(list);
    return text ? strstr(text, word) : NULL;
}

/* The number after `word=` in a list. */
static long long assigned(const char *list, const char *word, long long otherwise) {
    char key[80];
    snprintf(key, sizeof key, "%s=", word);
    const char *found = listed(list, key);
    return found ? atoll(found + strlen(key)) : otherwise;
}

static int failure(const char *function, int gpu) {
    char name[80];
    snprintf(name, sizeof name, "%s.%d", function, gpu);
    return assigned("SHIM_FAIL", name, assigned("SHIM_FAIL", function, SUCCESS));
}

/* What a function of a GPU that gives one number returns. */
static int number(const char *function, const int *gpu, const char *what, long long value, void *into, size_t size) {
    int failed = failure(function, *gpu);
    value = assigned("SHIM_VALUES", what, value);
    memcpy(into, &value, size);
    return failed ? failed : listed("SHIM_SUPPORTS", what) ? SUCCESS : NOT_SUPPORTED;
}

static int text(const char *function, int gpu, const char *value, char *into, unsigned size) {
    snprintf(into, size, "%s", value);
    return failure(function, gpu);
}

static int pair(int now, int *first, int *second) {
    *first = *second = now;
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int failed = failure(__func__, 0);
    return failed ? failed : getenv("SHIM_GPUS") ? SUCCESS : DRIVER_NOT_LOADED;
}

int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *into, unsigned size) { return text(__func__, 0, "580.95.05", into, size); }
int nvmlSystemGetNVMLVersion(char *into, unsigned size) { return text(__func__, 0, "13.580.95.05", into, size); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = setting("SHIM_GPUS", 0);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **gpu) {
    *gpu = &boards[index];
    return failure(__func__, index);
}

int nvmlDeviceGetName(int *gpu, char *into, unsigned size) {
    const char *name = getenv("SHIM_NAME");
    return text(__func__, *gpu, name ? name : "NVIDIA H200", into, size);
}

int nvmlDeviceGetUUID(int *gpu, char *into, unsigned size) {
    snprintf(into, size, "GPU-%d", *gpu);
    return failure(__func__, *gpu);
}

int nvmlDeviceGetVbiosVersion(int *gpu, char *into, unsigned size) {
    return text(__func__, *gpu, "96.00.5E.00.01", into, size);
}

int nvmlDeviceGetCudaComputeCapability(int *gpu, int *major, int *minor) {
    int capability = setting("SHIM_CAPABILITY", 90);
    *major = capability / 10;
    *minor = capability % 10;
    return failure(__func__, *gpu);
}

int nvmlDeviceGetEccMode(int *gpu, int *now, int *pending) {
    (void)gpu;
    return pair(1, now, pending);
}

int nvmlDeviceGetMigMode(int *gpu, int *now, int *pending) {
    (void)gpu;
    return pair(setting("SHIM_MIG", 0), now, pending);
}

int nvmlDeviceGetPersistenceMode(int *gpu, int *mode) {
    *mode = 1;
    return failure(__func__, *gpu);
}

int nvmlDeviceGetPowerManagementLimit(int *gpu, unsigned *milliwatts) {
    *milliwatts = 700000;
    return failure(__func__, *gpu);
}

int nvmlDeviceGetEnforcedPowerLimit(int *gpu, unsigned *milliwatts) {
    *milliwatts = 650000;
    return failure(__func__, *gpu);
}

/* As documented: the first call, without room, says how many there are. */
int nvmlDeviceGetComputeRunningProcesses_v3(int *gpu, unsigned *count, Process *processes) {
    unsigned there = setting("SHIM_PROCESSES", 0), room = *count;
    *count = there;
    if (room < there)
        return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there; i++)
        processes[i] = (Process){4242 + i, 1ULL << 30, {-1, -1}};
    return failure(__func__, *gpu);
}

static int answer(const int *gpu, FieldValue *field) {
    char what[24];
    snprintf(what, sizeof what, "%u.%u", field->field, field->scope);
    int energy = field->field == TOTAL_ENERGY;
    long long watts[] = {700, 900, 100};
    long long value = energy ? 5000000000000LL : 1000 * watts[field->scope % 3] - (field->field == POWER_AVERAGE ? 50000 : 0);
    field->type = energy ? UNSIGNED_LONG_LONG : UNSIGNED_INT;
    return field->result = number(what, gpu, what, value + *gpu, &field->value, energy ? 8 : 4);
}

/* As documented: success where any field has a value. */
int nvmlDeviceGetFieldValues(int *gpu, int count, FieldValue *fields) {
    int failed = failure(__func__, *gpu), result = NOT_SUPPORTED;
    for (int i = 0; i < count; i++)
        if (answer(gpu, &fields[i]) == SUCCESS)
            result = SUCCESS;
    return failed ? failed : result;
}

int nvmlDeviceGetTotalEnergyConsumption(int *gpu, unsigned long long *millijoules) {
    return number(__func__, gpu, "energy", 5000000000000LL + *gpu, millijoules, sizeof *millijoules);
}

int nvmlDeviceGetPowerUsage(int *gpu, unsigned *milliwatts) {
    return number(__func__, gpu, "usage", 640000 + *gpu, milliwatts, sizeof *milliwatts);
}

int nvmlDeviceGetTemperature(int *gpu, int sensor, unsigned *degrees) {
    (void)sensor;
    return number(__func__, gpu, "temperature", 60 + *gpu, degrees, sizeof *degrees);
}

int nvmlDeviceGetClockInfo(int *gpu, int clock, unsigned *megahertz) {
    return number(__func__, gpu, "clocks", clock == 1 ? 1980 : 3201, megahertz, sizeof *megahertz);
}

int nvmlDeviceGetCurrentClocksEventReasons(int *gpu, unsigned long long *mask) {
    return number(__func__, gpu, "events", 1, mask, sizeof *mask);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(int *gpu, unsigned long long *mask) {
    return number(__func__, gpu, "throttle", 1, mask, sizeof *mask);
}
