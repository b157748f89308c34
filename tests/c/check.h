/* What every test program of this folder checks with. */
#ifndef CHECK_H
#define CHECK_H

#include <arcp.h>

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { WAIT_MS = 10000 };

static atomic_int passed, failed;
static const char *test_name;

static void check(bool holds, const char *what, int line) {
    if (holds) {
        passed++;
    } else {
        failed++;
        printf("FAILED %s, line %d: %s\n", test_name, line, what);
    }
}

#define CHECK(condition) check((condition), #condition, __LINE__)
#define CHECK_TEXT(text, expected) check(same((text), (expected)), #text " is " #expected, __LINE__)
#define CHECK_HOLDS(text, part) check((text) != NULL && strstr((text), (part)) != NULL, #text " holds " #part, __LINE__)

static bool same(const char *left, const char *right) {
    return left != NULL && right != NULL && strcmp(left, right) == 0;
}

/* Checks a result and frees the error that came with it; says what the error was when it is unexpected. */
static bool expect_at(arcp_result result, arcp_error **given, arcp_result expected, int line) {
    arcp_error *error = *given;
    char what[256];
    snprintf(what, sizeof what, "%s instead of %s (%s)", arcp_result_name(result), arcp_result_name(expected),
             error != NULL ? arcp_error_message(error) : "no error");
    check(result == expected, what, line);
    check(arcp_error_result(error) == result, "the error says the same as the result", line);
    arcp_error_free(error);
    return result == expected;
}

#define EXPECT(expected, call) expect_at((call), &error, (expected), __LINE__)

typedef struct {
    const char *name;
    void (*run)(void);
} test;

static int run_tests(const test *tests, size_t count) {
    for (size_t i = 0; i < count; i++) {
        int before = failed;
        test_name = tests[i].name;
        tests[i].run();
        printf("%s %s\n", failed == before ? "ok    " : "FAILED", test_name);
        fflush(stdout);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}

#endif
