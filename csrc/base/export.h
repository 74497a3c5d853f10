// What other binaries may use of libsdltx.so; everything else is hidden.
#pragma once

#define SDLTX_EXPORT __attribute__((visibility("default")))
