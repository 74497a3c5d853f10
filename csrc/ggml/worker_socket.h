// Connections between a pipeline and a worker: who knows the secret gets one, and nobody is waited for without an end.
#pragma once

#include <chrono>
#include <string>

namespace sdltx {

// A connection that closes itself.
struct Socket {
    int fd = -1;
    Socket() = default;
    ~Socket();
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
};

// How long a worker may take to answer the first time: five seconds, or what SDLTX_WORKER_TIMEOUT says.
std::chrono::milliseconds answer_time();
// What both sides have to know, from SDLTX_WORKER_SECRET; empty: nothing.
std::string worker_secret();

// Within the time limit; signals make it no longer.
bool wait_for(int fd, short events, std::chrono::milliseconds limit);
// A connection within the time limit, or none.
void connect_to(Socket& s, const std::string& host, const std::string& port);

// What came of proving to each other that both know the secret.
enum class Handshake { done, refused, silent, not_asked };
// The side that asks: it has connected.
Handshake prove_to_worker(int fd, const std::string& secret);
// What a worker that wants a secret says first.
constexpr char secret_wanted[] = "sdltx wants a secret 1\n";
constexpr size_t secret_wanted_size = sizeof(secret_wanted) - 1;

// From now on this process serves: connections that are accepted have proved that they know the secret, if there is
// one, and have to go on speaking.
void serve_connections();
bool serves_connections();

}  // namespace sdltx
