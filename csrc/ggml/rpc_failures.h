// Included before each source of ggml's RPC backend, which ends the process when the other side goes away: here that is
// an exception, and while something is given back it is nothing at all. Connections are those of worker_socket.cpp,
// which asks for the secret and does not wait for ever.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include "ggml.h"

void sdltx_rpc_failed(const char* file, int line, const char* format, ...);
int sdltx_rpc_accept(int socket, struct sockaddr* address, socklen_t* length);
int sdltx_rpc_connect(int socket, const struct sockaddr* address, socklen_t length);
ssize_t sdltx_rpc_send(int socket, const void* data, size_t size, int flags);
ssize_t sdltx_rpc_recv(int socket, void* data, size_t size, int flags);

#undef GGML_ABORT
#define GGML_ABORT(...) sdltx_rpc_failed(__FILE__, __LINE__, __VA_ARGS__)
#define send(socket, data, size, flags) sdltx_rpc_send(socket, data, size, flags)
#define recv(socket, data, size, flags) sdltx_rpc_recv(socket, data, size, flags)
#define accept(...) sdltx_rpc_accept(__VA_ARGS__)
#define connect(...) sdltx_rpc_connect(__VA_ARGS__)
