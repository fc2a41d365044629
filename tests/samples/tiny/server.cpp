#include <cstdio>

extern "C" int llama_answer(void);
extern const int build_number;
extern const char *const build_commit;

int main() {
    std::printf("version: %d (%s), answer %d\n", build_number, build_commit, llama_answer());
}
