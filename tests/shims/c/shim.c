/*
 * The C shim (tests/shims/README.md): commands on standard input, answers on standard output, all on one thread, which
 * waits for its input and the library's ports with poll().
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agents.h"
#include "client.h"
#include "hosting.h"
#include "registry.h"

enum { EXIT_MS = 500 };

static arcp_port *agents;

static const char *const FUNCTIONS[] = {
    "parse_agent_ref",   "parse_budget_amount", "validate_lease_op", "is_lease_subset",
    "intersect_features", "error_from_payload",  "envelope",
};
enum { FUNCTION_COUNT = sizeof FUNCTIONS / sizeof FUNCTIONS[0] };

static void do_hello(long id) {
    text out = {0};
    text_add(&out, "{\"language\":\"c\",\"capabilities\":[\"client\",\"runtime\",\"subscribe\",\"submit.lease\",\"agent_versions\"");
    text_add(&out, ",\"heal\",\"resume\",\"listing\",\"result_chunk\",\"registry\"");
    for (int i = 0; agents_name(i) != NULL; i++) {
        text_add(&out, ",\"agent.");
        text_add(&out, agents_name(i));
        text_add(&out, "\"");
    }
    for (int i = 0; i < FUNCTION_COUNT; i++) {
        text_add(&out, ",\"call.");
        text_add(&out, FUNCTIONS[i]);
        text_add(&out, "\"");
    }
    text_add(&out, "]}");
    answer_text(id, &out);
}

static void do_call(long id, json command) {
    char *function = json_string(json_member(command, "function"));
    text arguments = {0};
    text_add_json(&arguments, json_member(command, "args"));
    char *value;
    arcp_error *error;
    if (arcp_call_function(function, arguments.at, &value, &error) == ARCP_OK) {
        answer(id, "ok", value);
    } else {
        answer_failure(id, error);
    }
    arcp_string_free(value);
    arcp_error_free(error);
    free(arguments.at);
    free(function);
}

static void leave(void) {
    arcp_core_shutdown(core, EXIT_MS);
    exit(0);
}

static void carry_out(const char *line) {
    json command = json_parse(line);
    long id = json_number(json_member(command, "id"), -1);
    char *what = json_string(json_member(command, "do"));
    if (what == NULL) {
        answer_bad(id, "not a command");
    } else if (strcmp(what, "hello") == 0) {
        do_hello(id);
    } else if (strcmp(what, "exit") == 0) {
        answer(id, "ok", "{}");
        leave();
    } else if (strcmp(what, "call") == 0) {
        do_call(id, command);
    } else if (!client_carries_out(id, what, command) && !registry_carries_out(id, what, command) &&
               !hosting_carries_out(id, agents, what, command)) {
        answer_error(id, "UNSUPPORTED", what, false, NULL);
    }
    free(what);
}

static void handle(arcp_item *item) {
    switch (item->kind) {
        case ARCP_ITEM_COMPLETED:
            call_completed(item);
            break;
        case ARCP_ITEM_READY:
            client_stream_ready(item->number);
            break;
        default:
            break;
    }
}

static void drain_port(void) {
    arcp_item item;
    while (arcp_port_next(port, &item, NULL) == ARCP_OK && item.kind != ARCP_ITEM_NONE) {
        handle(&item);
        arcp_item_clear(&item);
    }
}

/* Reads what waits and carries out each whole line; false at the end of the input. */
static bool read_commands(text *pending) {
    char chunk[65536];
    ssize_t length = read(STDIN_FILENO, chunk, sizeof chunk);
    if (length < 0) {
        return errno == EINTR;
    }
    text_add_bytes(pending, chunk, (size_t)length);
    char *line = pending->at;
    for (char *end; (end = memchr(line, '\n', pending->length - (size_t)(line - pending->at))) != NULL; line = end + 1) {
        *end = '\0';
        carry_out(line);
    }
    pending->length -= (size_t)(line - pending->at);
    memmove(pending->at, line, pending->length);
    return length > 0;
}

int main(void) {
    if (arcp_core_new(0, &core, NULL) != ARCP_OK || arcp_port_new(core, NULL, NULL, &port, NULL) != ARCP_OK ||
        (agents = agents_start(core)) == NULL) {
        fputs("the library does not start\n", stderr);
        return 1;
    }
    struct pollfd inputs[] = {
        {.fd = STDIN_FILENO, .events = POLLIN},
        {.fd = arcp_port_fd(port), .events = POLLIN},
        {.fd = arcp_port_fd(agents), .events = POLLIN},
    };
    text pending = {0};
    for (;;) {
        if (poll(inputs, 3, agents_wake()) < 0 && errno != EINTR) {
            perror("poll");
            return 1;
        }
        if ((inputs[1].revents & POLLIN) != 0) {
            drain_port();
        }
        if ((inputs[2].revents & POLLIN) != 0) {
            agents_drain();
        }
        if ((inputs[0].revents & (POLLIN | POLLHUP)) != 0 && !read_commands(&pending)) {
            leave();
        }
    }
}
