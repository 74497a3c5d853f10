// Included before each source of ggml's RPC backend, which ends the process when the other side goes away: here that is
// an exception, and while something is given back it is nothing at all.
#pragma once

#include <sys/socket.h>

#include "ggml.h"

void sdltx_rpc_failed(const char* file, int line, const char* format, ...);

#undef GGML_ABORT
#define GGML_ABORT(...) sdltx_rpc_failed(__FILE__, __LINE__, __VA_ARGS__)
// A closed connection is an error of the call, and no signal that ends the program.
#define send(socket, data, size, flags) send(socket, data, size, (flags) | MSG_NOSIGNAL)
