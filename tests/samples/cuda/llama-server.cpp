#include "ggml-cuda.h"

#include <cstdio>

int main() {
    std::printf("driver: %s\n", ggml_cuda_driver());
    std::printf("device 0: %s\n", ggml_cuda_works() ? "works" : "does not work");
    return 0;
}
