#include "json.h"

#include <stdlib.h>
#include <string.h>

static const char *skip_blank(const char *at, const char *end) {
    while (at < end && strchr(" \t\r\n", *at) != NULL) {
        at++;
    }
    return at;
}

static const char *skip_string(const char *at, const char *end) {
    for (at++; at < end && *at != '"'; at++) {
        if (*at == '\\') {
            at++;
        }
    }
    return at < end ? at + 1 : NULL;
}

/* The end of the value that begins at `at`. */
static const char *skip_value(const char *at, const char *end) {
    if (at >= end) {
        return NULL;
    }
    if (*at == '"') {
        return skip_string(at, end);
    }
    if (*at != '{' && *at != '[') {
        const char *start = at;
        while (at < end && strchr(",:]} \t\r\n", *at) == NULL) {
            at++;
        }
        return at > start ? at : NULL;
    }
    size_t depth = 0;
    while (at != NULL && at < end) {
        if (*at == '"') {
            at = skip_string(at, end);
            continue;
        }
        if (*at == '{' || *at == '[') {
            depth++;
        } else if ((*at == '}' || *at == ']') && --depth == 0) {
            return at + 1;
        }
        at++;
    }
    return NULL;
}

static const json ABSENT = {NULL, 0};

static json value_at(const char *at, const char *end) {
    const char *after = skip_value(at, end);
    return after == NULL ? ABSENT : (json){at, (size_t)(after - at)};
}

static bool is_literal(json value, const char *literal) {
    return value.at != NULL && value.length == strlen(literal) && memcmp(value.at, literal, value.length) == 0;
}

json json_parse(const char *source) {
    const char *end = source + strlen(source);
    return value_at(skip_blank(source, end), end);
}

json json_parse_whole(const char *source, size_t length) {
    const char *end = source + length;
    json value = memchr(source, '\0', length) == NULL ? value_at(skip_blank(source, end), end) : ABSENT;
    return value.at != NULL && skip_blank(value.at + value.length, end) == end ? value : ABSENT;
}

bool json_next(json container, size_t *cursor, json *name, json *value) {
    if (container.at == NULL || (*container.at != '{' && *container.at != '[')) {
        return false;
    }
    const char *end = container.at + container.length - 1;
    const char *at = skip_blank(container.at + (*cursor == 0 ? 1 : *cursor), end);
    if (at < end && *at == ',') {
        at = skip_blank(at + 1, end);
    }
    if (*container.at == '{') {
        json key = value_at(at, end);
        if (key.at == NULL) {
            return false;
        }
        if (name != NULL) {
            *name = key;
        }
        at = skip_blank(key.at + key.length, end);
        if (at >= end || *at != ':') {
            return false;
        }
        at = skip_blank(at + 1, end);
    }
    *value = value_at(at, end);
    if (value->at == NULL) {
        return false;
    }
    *cursor = (size_t)(value->at + value->length - container.at);
    return true;
}

json json_member_or_null(json object, const char *name) {
    json key, value, found = ABSENT;
    if (object.at == NULL || *object.at != '{') {
        return found;
    }
    for (size_t cursor = 0; json_next(object, &cursor, &key, &value);) {
        char *text = json_string(key);
        if (text != NULL && strcmp(text, name) == 0) {
            found = value;
        }
        free(text);
    }
    return found;
}

json json_member(json object, const char *name) {
    json value = json_member_or_null(object, name);
    return is_literal(value, "null") ? ABSENT : value;
}

static unsigned hex(const char *digits) {
    char four[5] = {digits[0], digits[1], digits[2], digits[3], 0};
    return (unsigned)strtoul(four, NULL, 16);
}

static char *add_utf8(char *to, unsigned point) {
    if (point < 0x80) {
        *to++ = (char)point;
    } else if (point < 0x800) {
        *to++ = (char)(0xC0 | point >> 6);
        *to++ = (char)(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
        *to++ = (char)(0xE0 | point >> 12);
        *to++ = (char)(0x80 | (point >> 6 & 0x3F));
        *to++ = (char)(0x80 | (point & 0x3F));
    } else {
        *to++ = (char)(0xF0 | point >> 18);
        *to++ = (char)(0x80 | (point >> 12 & 0x3F));
        *to++ = (char)(0x80 | (point >> 6 & 0x3F));
        *to++ = (char)(0x80 | (point & 0x3F));
    }
    return to;
}

char *json_string(json value) {
    if (value.at == NULL || *value.at != '"') {
        return NULL;
    }
    /* No escape is shorter than what it stands for. */
    char *decoded = malloc(value.length), *to = decoded;
    const char *end = value.at + value.length - 1;
    for (const char *at = value.at + 1; at < end; at++) {
        if (*at != '\\') {
            *to++ = *at;
            continue;
        }
        static const char from[] = "bfnrt", into[] = "\b\f\n\r\t";
        const char *escape = strchr(from, *++at);
        if (*at == 'u' && end - at > 4) {
            unsigned point = hex(at + 1);
            at += 4;
            if (point >= 0xD800 && point < 0xDC00 && end - at > 6 && at[1] == '\\' && at[2] == 'u') {
                point = 0x10000 + ((point - 0xD800) << 10) + (hex(at + 3) - 0xDC00);
                at += 6;
            }
            to = add_utf8(to, point);
        } else {
            *to++ = escape != NULL ? into[escape - from] : *at;
        }
    }
    *to = '\0';
    return decoded;
}

long json_number(json value, long otherwise) {
    return value.at != NULL && strchr("-0123456789", *value.at) != NULL ? strtol(value.at, NULL, 10) : otherwise;
}

bool json_is_true(json value) {
    return is_literal(value, "true");
}

void text_add_bytes(text *to, const char *part, size_t length) {
    if (to->length + length + 1 > to->room) {
        to->room = 2 * (to->length + length + 1);
        to->at = realloc(to->at, to->room);
        if (to->at == NULL) {
            abort();
        }
    }
    memcpy(to->at + to->length, part, length);
    to->length += length;
    to->at[to->length] = '\0';
}

void text_add(text *to, const char *part) {
    text_add_bytes(to, part, strlen(part));
}

void text_add_json(text *to, json value) {
    if (value.at != NULL) {
        text_add_bytes(to, value.at, value.length);
    } else {
        text_add(to, "null");
    }
}

void text_add_string(text *to, const char *string) {
    static const char digits[] = "0123456789abcdef";
    text_add(to, "\"");
    for (const char *at = string; *at != '\0'; at++) {
        unsigned char byte = (unsigned char)*at;
        if (byte < 0x20) {
            char escape[] = {'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15], '\0'};
            text_add(to, escape);
        } else {
            if (byte == '"' || byte == '\\') {
                text_add(to, "\\");
            }
            text_add_bytes(to, at, 1);
        }
    }
    text_add(to, "\"");
}

void text_add_member(text *to, const char *name, json value) {
    if (value.at == NULL) {
        return;
    }
    if (to->length > 0 && to->at[to->length - 1] != '{') {
        text_add(to, ",");
    }
    text_add_string(to, name);
    text_add(to, ":");
    text_add_json(to, value);
}
