#include "ggml-cuda.h"

#include <cublas_v2.h>
#include <cuda.h>

const char * ggml_cuda_driver(void) {
    const char * text = nullptr;
    const CUresult result = cuInit(0);
    return cuGetErrorString(result, &text) == CUDA_SUCCESS ? text : "a driver that has no words";
}

static __global__ void put(float * where, float value) {
    *where = value;
}

// One product of two 1 × 1 matrices, asked for as ggml does: by type, and the algorithm left open.
static bool multiply(const float * a, const float * b, float * c) {
    const float one = 1, zero = 0;
    cublasHandle_t blas;
    return cublasCreate(&blas) == CUBLAS_STATUS_SUCCESS &&
           cublasGemmEx(blas, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a, CUDA_R_32F, 1, b, CUDA_R_32F, 1, &zero, c,
                        CUDA_R_32F, 1, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT_TENSOR_OP) == CUBLAS_STATUS_SUCCESS;
}

bool ggml_cuda_works(void) {
    CUdevice device;
    float * memory = nullptr;
    if (cuDeviceGet(&device, 0) != CUDA_SUCCESS || cudaMalloc(&memory, 3 * sizeof(float)) != cudaSuccess) {
        return false;
    }
    put<<<1, 1>>>(memory, 6);
    put<<<1, 1>>>(memory + 1, 7);
    float seen = 0;
    return multiply(memory, memory + 1, memory + 2) &&
           cudaMemcpy(&seen, memory + 2, sizeof(float), cudaMemcpyDeviceToHost) == cudaSuccess && seen == 42;
}
