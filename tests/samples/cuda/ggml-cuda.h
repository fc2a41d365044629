#pragma once

// What the driver says to cuInit(0): its word for the error, or "no error".
const char * ggml_cuda_driver(void);

// One kernel and one product by cuBLAS on device 0: true when both worked.
bool ggml_cuda_works(void);
