// The parts of the table; kernels.h says what they do.
#pragma once

#include "kernels.h"

namespace sdltx::kernels {

void norm(const NormJob& job, Share share);
void gate(const GateJob& job, Share share);
void gelu_tanh(const GeluJob& job, Share share);

}  // namespace sdltx::kernels
