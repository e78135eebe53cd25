/* A CUDA driver without a GPU: libcuda.so.1 for tests, held to NVIDIA's own header.
 *
 * Device memory is host memory. Copies, computations and graph launches wait in their stream until
 * somebody synchronises, so that a reader who does not wait reads stale values. Allocations are
 * counted, so that leaks show. A failure can be ordered; a "sticky" one answers every later call
 * that touches the context, frees included, as on a device.
 */
#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef cuGetProcAddress

typedef void (*Compute)(void *data);
typedef struct Op {
  enum { COPY, COMPUTE, GRAPH } kind;
  void *to;
  const void *from;
  size_t size;
  Compute compute;
  void *data;
  struct Ops *graph;
} Op;
typedef struct Ops {
  Op *ops;
  int count, capacity;
} Ops;
struct CUgraph_st {
  Ops recorded;
};
struct CUgraphExec_st {
  Ops recorded;
};
struct CUstream_st {
  int id;
  Ops pending;
  CUgraph capture;
};

// Atomic: scenarios call from several threads.
_Atomic long sim_device_allocations, sim_pinned_allocations, sim_streams, sim_graphs, sim_contexts;
_Atomic long sim_copies, sim_launches, sim_computes, sim_synchronizes;
size_t sim_memory_limit = (size_t)1 << 30;
_Atomic size_t sim_memory_used;
int sim_gpus = 1, sim_init_status = CUDA_SUCCESS, sim_sticky = CUDA_SUCCESS, sim_fail_capture = 0;
int sim_capability = 90;
int sim_trace[4096];
_Atomic int sim_traced;
static _Atomic int next_stream = 1;
static __thread int depth;

#define LIVE_CONTEXT                               \
  do {                                             \
    if (sim_sticky) return (CUresult)sim_sticky;   \
    if (depth == 0) return CUDA_ERROR_INVALID_CONTEXT; \
  } while (0)

static void add(Ops *ops, Op op) {
  if (ops->count == ops->capacity) {
    ops->capacity = ops->capacity ? 2 * ops->capacity : 8;
    ops->ops = realloc(ops->ops, ops->capacity * sizeof(Op));
  }
  ops->ops[ops->count++] = op;
}

static void perform(Ops *ops) {
  for (int i = 0; i < ops->count; i++) {
    Op *op = &ops->ops[i];
    if (op->kind == COPY) memcpy(op->to, op->from, op->size);
    if (op->kind == COMPUTE) {
      op->compute(op->data);
      sim_computes++;
    }
    if (op->kind == GRAPH) perform(op->graph);
  }
}

static CUresult enqueue(CUstream stream, Op op) {
  LIVE_CONTEXT;
  add(stream->capture ? &stream->capture->recorded : &stream->pending, op);
  if (!stream->capture && sim_traced < 4096) sim_trace[sim_traced++] = stream->id;
  return CUDA_SUCCESS;
}

CUresult sim_enqueue_compute(CUstream stream, Compute compute, void *data) {
  return enqueue(stream, (Op){.kind = COMPUTE, .compute = compute, .data = data});
}

CUresult cuInit(unsigned flags) { return sim_init_status; }
CUresult cuDriverGetVersion(int *version) { return *version = 13000, CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { return *count = sim_gpus, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  *device = ordinal;
  return ordinal < sim_gpus ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
  snprintf(name, length, "Simulated GPU %d", device);
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR   ? sim_capability / 10
           : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? sim_capability % 10
                                                                       : 1;
  return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  return *bytes = sim_memory_limit, CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  sim_contexts++;
  *context = (CUcontext)(intptr_t)(0x1000 + device);
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  if (sim_sticky) return (CUresult)sim_sticky;
  sim_contexts--;
  return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent_v2(CUcontext context) { return depth++, CUDA_SUCCESS; }
CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  if (depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
  depth--;
  if (context) *context = (CUcontext)0x1000;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) { return *device = 0, CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *context) {
  return *context = depth ? (CUcontext)0x1000 : NULL, CUDA_SUCCESS;
}
CUresult cuCtxSynchronize(void) { return sim_sticky; }
CUresult cuMemGetInfo_v2(size_t *left, size_t *total) {
  LIVE_CONTEXT;
  *left = sim_memory_limit - sim_memory_used;
  *total = sim_memory_limit;
  return CUDA_SUCCESS;
}
CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t size) {
  LIVE_CONTEXT;
  if (sim_memory_used + size > sim_memory_limit) return CUDA_ERROR_OUT_OF_MEMORY;
  size_t *block = malloc(size + sizeof(size_t) * 2);
  block[0] = size;
  sim_memory_used += size;
  sim_device_allocations++;
  *pointer = (CUdeviceptr)(block + 2);
  return CUDA_SUCCESS;
}
CUresult cuMemFree_v2(CUdeviceptr pointer) {
  LIVE_CONTEXT;
  size_t *block = (size_t *)pointer - 2;
  sim_memory_used -= block[0];
  sim_device_allocations--;
  free(block);
  return CUDA_SUCCESS;
}
CUresult cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
  LIVE_CONTEXT;
  *pointer = calloc(1, size);
  sim_pinned_allocations++;
  return CUDA_SUCCESS;
}
CUresult cuMemAllocHost_v2(void **pointer, size_t size) { return cuMemHostAlloc(pointer, size, 0); }
CUresult cuMemFreeHost(void *pointer) {
  LIVE_CONTEXT;
  free(pointer);
  sim_pinned_allocations--;
  return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
  sim_copies++;
  return enqueue(stream, (Op){.kind = COPY, .to = (void *)to, .from = from, .size = size});
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
  sim_copies++;
  return enqueue(stream, (Op){.kind = COPY, .to = to, .from = (void *)from, .size = size});
}
CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  LIVE_CONTEXT;
  *stream = calloc(1, sizeof(struct CUstream_st));
  (*stream)->id = next_stream++;
  sim_streams++;
  return CUDA_SUCCESS;
}
CUresult cuStreamDestroy_v2(CUstream stream) {
  LIVE_CONTEXT;
  free(stream->pending.ops);
  free(stream);
  sim_streams--;
  return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
  sim_synchronizes++;
  LIVE_CONTEXT;
  perform(&stream->pending);
  stream->pending.count = 0;
  return CUDA_SUCCESS;
}
CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  LIVE_CONTEXT;
  stream->capture = calloc(1, sizeof(struct CUgraph_st));
  return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  LIVE_CONTEXT;
  *graph = stream->capture;
  stream->capture = NULL;
  if (sim_fail_capture) {
    free((*graph)->recorded.ops);
    free(*graph);
    *graph = NULL;
    return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  }
  sim_graphs++;
  return CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
  LIVE_CONTEXT;
  *exec = calloc(1, sizeof(struct CUgraphExec_st));
  for (int i = 0; i < graph->recorded.count; i++) add(&(*exec)->recorded, graph->recorded.ops[i]);
  sim_graphs++;
  return CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  sim_launches++;
  return enqueue(stream, (Op){.kind = GRAPH, .graph = &exec->recorded});
}
CUresult cuGraphExecDestroy(CUgraphExec exec) {
  LIVE_CONTEXT;
  free(exec->recorded.ops);
  free(exec);
  sim_graphs--;
  return CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph graph) {
  LIVE_CONTEXT;
  free(graph->recorded.ops);
  free(graph);
  sim_graphs--;
  return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult status, const char **text) {
  *text = status == CUDA_SUCCESS                 ? "no error"
          : status == CUDA_ERROR_OUT_OF_MEMORY   ? "out of memory"
          : status == CUDA_ERROR_NO_DEVICE       ? "no CUDA-capable device is detected"
          : status == CUDA_ERROR_ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
                                                 : "an error";
  return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult status, const char **text) { return cuGetErrorString(status, text); }

CUresult cuGetProcAddress_v2(const char *name, void **function, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *found) {
  char newer[128];
  snprintf(newer, sizeof newer, "%s_v2", name);
  void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  *function = dlsym(self, newer);
  if (!*function) *function = dlsym(self, name);
  if (found) *found = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
CUresult cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
