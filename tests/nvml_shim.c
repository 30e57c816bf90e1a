/* A libnvidia-ml.so.1 with what the nvml driver calls; the environment says which GPUs there are and what they support. */

#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 };
enum { TOTAL_ENERGY = 83, POWER_AVERAGE = 185, POWER_INSTANT = 186 };

typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    int type, result;
    union {
        unsigned narrow;
        unsigned long long wide;
    } value;
} FieldValue;

static int boards[8];
static int calls;

static int setting(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static int supports(const char *what) {
    const char *list = getenv("SHIM_SUPPORTS");
    return list && strstr(list, what);
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return setting("SHIM_DRIVER", 1) ? SUCCESS : DRIVER_NOT_LOADED;
}

int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = setting("SHIM_GPUS", 1);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **device) {
    *device = &boards[index];
    **device = index;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(int *device, int *major, int *minor) {
    (void)device;
    int capability = setting("SHIM_CAPABILITY", 90);
    *major = capability / 10;
    *minor = capability % 10;
    return SUCCESS;
}

static int answer(int *device, FieldValue *field) {
    int silent = calls > setting("SHIM_SILENT_AFTER", 1000000);
    field->type = UNSIGNED_INT;
    field->result = silent ? NOT_SUPPORTED : SUCCESS;
    if (field->field == POWER_INSTANT && supports("instant"))
        field->value.narrow = 700000 + *device;
    else if (field->field == POWER_AVERAGE && supports("average"))
        field->value.narrow = supports("zero") ? 0 : 650000 + *device;
    else if (field->field == TOTAL_ENERGY && supports("energy")) {
        field->type = UNSIGNED_LONG_LONG;
        field->value.wide = 5000000000000ULL + *device;
    } else
        field->result = NOT_SUPPORTED;
    return field->result;
}

/* As documented: success where any field has a value. */
int nvmlDeviceGetFieldValues(int *device, int count, FieldValue *fields) {
    if (++calls > setting("SHIM_LOST_AFTER", 1000000))
        return GPU_IS_LOST;
    int result = NOT_SUPPORTED;
    for (int i = 0; i < count; i++)
        if (answer(device, &fields[i]) == SUCCESS)
            result = SUCCESS;
    return result;
}

int nvmlDeviceGetPowerUsage(int *device, unsigned *milliwatts) {
    *milliwatts = 640000 + *device;
    return supports("usage") ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetTemperature(int *device, int sensor, unsigned *degrees) {
    (void)sensor;
    *degrees = 60 + *device;
    return supports("temperature") ? SUCCESS : NOT_SUPPORTED;
}
