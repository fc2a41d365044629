#include "ggml-cuda.h"

#include <cublas_v2.h>
#include <cuda.h>

const char * ggml_cuda_driver(void) {
    const char * text = nullptr;
    const CUresult result = cuInit(0);
    return cuGetErrorString(result, &text) == CUDA_SUCCESS ? text : "a driver that has no words";
}

static __global__ void put(int * where, int value) {
    *where = value;
}

bool ggml_cuda_works(void) {
    CUdevice device;
    int * memory = nullptr;
    cublasHandle_t blas;
    if (cuDeviceGet(&device, 0) != CUDA_SUCCESS || cudaMalloc(&memory, sizeof(int)) != cudaSuccess) {
        return false;
    }
    put<<<1, 1>>>(memory, 42);
    int seen = 0;
    cudaMemcpy(&seen, memory, sizeof(int), cudaMemcpyDeviceToHost);
    return seen == 42 && cublasCreate(&blas) == CUBLAS_STATUS_SUCCESS;
}
