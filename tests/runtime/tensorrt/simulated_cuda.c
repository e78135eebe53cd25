/* A CUDA driver without a GPU: libcuda.so.1 for tests.
 *
 * Device memory is host memory. Copies, computations and graph launches wait in their stream until
 * somebody synchronises, so that a reader who does not wait reads stale values. Allocations are
 * counted, so that leaks show. A failure can be ordered; a "sticky" one stays, as on a device.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700 };

typedef void (*Compute)(void *data);
typedef struct Op {
  enum { COPY, COMPUTE, GRAPH } kind;
  void *to;
  const void *from;
  size_t size;
  Compute compute;
  void *data;
  struct Graph *graph;
} Op;
typedef struct Graph {
  Op *ops;
  int count, capacity;
} Graph;
typedef struct Stream {
  int id;
  Graph pending;
  Graph *capture;
} Stream;

long sim_device_allocations, sim_pinned_allocations, sim_streams, sim_graphs, sim_contexts;
long sim_copies, sim_launches, sim_computes, sim_synchronizes;
size_t sim_memory_limit = (size_t)1 << 30, sim_memory_used;
int sim_gpus = 1, sim_init_status = SUCCESS, sim_sticky = SUCCESS, sim_fail_capture = 0;
int sim_trace[4096], sim_traced;
static int next_stream = 1;
static __thread int depth;

static void add(Graph *graph, Op op) {
  if (graph->count == graph->capacity) {
    graph->capacity = graph->capacity ? 2 * graph->capacity : 8;
    graph->ops = realloc(graph->ops, graph->capacity * sizeof(Op));
  }
  graph->ops[graph->count++] = op;
}

static void perform(Graph *graph, int stream) {
  for (int i = 0; i < graph->count; i++) {
    Op *op = &graph->ops[i];
    if (op->kind == COPY) memcpy(op->to, op->from, op->size);
    if (op->kind == COMPUTE) {
      op->compute(op->data);
      sim_computes++;
    }
    if (op->kind == GRAPH) perform(op->graph, stream);
  }
}

static CUresult enqueue(Stream *stream, Op op) {
  if (sim_sticky) return sim_sticky;
  if (depth == 0) return 201; /* invalid context */
  add(stream->capture ? stream->capture : &stream->pending, op);
  if (!stream->capture && sim_traced < 4096) sim_trace[sim_traced++] = stream->id;
  return SUCCESS;
}

CUresult sim_enqueue_compute(Stream *stream, Compute compute, void *data) {
  return enqueue(stream, (Op){.kind = COMPUTE, .compute = compute, .data = data});
}

CUresult cuInit(unsigned flags) { return sim_init_status; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = sim_gpus; return SUCCESS; }
CUresult cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal < sim_gpus ? SUCCESS : 101;
}
CUresult cuDeviceGetName(char *name, int length, int device) {
  snprintf(name, length, "Simulated GPU %d", device);
  return SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 1;
  return SUCCESS;
}
CUresult cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = sim_memory_limit; return SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
  sim_contexts++;
  *context = (void *)(intptr_t)(0x1000 + device);
  return SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(int device) { sim_contexts--; return SUCCESS; }
CUresult cuCtxPushCurrent_v2(void *context) { depth++; return SUCCESS; }
CUresult cuCtxPopCurrent_v2(void **context) {
  if (depth == 0) return 201;
  depth--;
  if (context) *context = (void *)0x1000;
  return SUCCESS;
}
CUresult cuCtxGetDevice(int *device) { *device = 0; return SUCCESS; }
CUresult cuCtxGetCurrent(void **context) {
  *context = depth ? (void *)0x1000 : NULL;
  return SUCCESS;
}
CUresult cuCtxSynchronize(void) { return sim_sticky; }
CUresult cuMemGetInfo_v2(size_t *left, size_t *total) {
  *left = sim_memory_limit - sim_memory_used;
  *total = sim_memory_limit;
  return SUCCESS;
}
CUresult cuMemAlloc_v2(void **pointer, size_t size) {
  if (depth == 0) return 201;
  if (sim_memory_used + size > sim_memory_limit) return OUT_OF_MEMORY;
  size_t *block = malloc(size + sizeof(size_t) * 2);
  block[0] = size;
  sim_memory_used += size;
  sim_device_allocations++;
  *pointer = block + 2;
  return SUCCESS;
}
CUresult cuMemFree_v2(void *pointer) {
  size_t *block = (size_t *)pointer - 2;
  sim_memory_used -= block[0];
  sim_device_allocations--;
  free(block);
  return SUCCESS;
}
CUresult cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
  *pointer = calloc(1, size);
  sim_pinned_allocations++;
  return SUCCESS;
}
CUresult cuMemAllocHost_v2(void **pointer, size_t size) { return cuMemHostAlloc(pointer, size, 0); }
CUresult cuMemFreeHost(void *pointer) {
  free(pointer);
  sim_pinned_allocations--;
  return SUCCESS;
}
CUresult cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, Stream *stream) {
  sim_copies++;
  return enqueue(stream, (Op){.kind = COPY, .to = to, .from = from, .size = size});
}
CUresult cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, Stream *stream) {
  sim_copies++;
  return enqueue(stream, (Op){.kind = COPY, .to = to, .from = from, .size = size});
}
CUresult cuStreamCreate(Stream **stream, unsigned flags) {
  *stream = calloc(1, sizeof(Stream));
  (*stream)->id = next_stream++;
  sim_streams++;
  return SUCCESS;
}
CUresult cuStreamDestroy_v2(Stream *stream) {
  free(stream->pending.ops);
  free(stream);
  sim_streams--;
  return SUCCESS;
}
CUresult cuStreamSynchronize(Stream *stream) {
  sim_synchronizes++;
  if (sim_sticky) return sim_sticky;
  perform(&stream->pending, stream->id);
  stream->pending.count = 0;
  return SUCCESS;
}
CUresult cuStreamBeginCapture_v2(Stream *stream, int mode) {
  stream->capture = calloc(1, sizeof(Graph));
  return SUCCESS;
}
CUresult cuStreamEndCapture(Stream *stream, Graph **graph) {
  *graph = stream->capture;
  stream->capture = NULL;
  if (sim_fail_capture) {
    free((*graph)->ops);
    free(*graph);
    *graph = NULL;
    return 901; /* stream capture invalidated */
  }
  sim_graphs++;
  return SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(Graph **exec, Graph *graph, unsigned long long flags) {
  *exec = calloc(1, sizeof(Graph));
  for (int i = 0; i < graph->count; i++) add(*exec, graph->ops[i]);
  sim_graphs++;
  return SUCCESS;
}
CUresult cuGraphLaunch(Graph *exec, Stream *stream) {
  sim_launches++;
  return enqueue(stream, (Op){.kind = GRAPH, .graph = exec});
}
static CUresult drop(Graph *graph) {
  free(graph->ops);
  free(graph);
  sim_graphs--;
  return SUCCESS;
}
CUresult cuGraphExecDestroy(Graph *exec) { return drop(exec); }
CUresult cuGraphDestroy(Graph *graph) { return drop(graph); }
CUresult cuGetErrorString(CUresult status, const char **text) {
  *text = status == SUCCESS           ? "no error"
          : status == OUT_OF_MEMORY   ? "out of memory"
          : status == 100             ? "no CUDA-capable device is detected"
          : status == ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
          : status == 901             ? "operation failed due to a previous error during capture"
                                      : "an error";
  return SUCCESS;
}
CUresult cuGetErrorName(CUresult status, const char **text) { return cuGetErrorString(status, text); }

CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found) {
  char newer[128];
  snprintf(newer, sizeof newer, "%s_v2", name);
  void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  *function = dlsym(self, newer);
  if (!*function) *function = dlsym(self, name);
  if (found) *found = *function ? 0 : 1;
  return *function ? SUCCESS : NOT_FOUND;
}
CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
