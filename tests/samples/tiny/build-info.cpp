extern const int build_number = BUILD_NUMBER;
extern const char *const build_commit = BUILD_COMMIT;
