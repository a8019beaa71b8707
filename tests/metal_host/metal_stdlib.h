// The part of the Metal standard library that kernels for LLM inference use, in two readings:
//   C++17 (g++ >= 12, clang++): runs on a CPU; address spaces are empty words
//   C++ for OpenCL (clang -x clcpp): is only checked; address spaces are real
#pragma once
#include "metal_math.h"
#include "metal_simdgroup.h"
#include "metal_types.h"

// ---- names and words that Metal has without `metal::`
using metal::as_type;
using metal::bfloat;
using metal::uchar;
using metal::uint;
using metal::ulong;
using metal::ushort;
#define HOST_USING(T) \
  using metal::T##2; \
  using metal::T##3; \
  using metal::T##4;
HOST_USING(bool)
HOST_INTEGERS(HOST_USING)
HOST_FLOATS(HOST_USING)
#if HOST_LINT
#define device __global
#define threadgroup __local
#define thread __private
#define global global_  // words that OpenCL reserves and Metal does not
#define local local_
#define generic generic_
#define pipe pipe_
#else
using metal::half;
#define device
#define threadgroup
#define thread
#define constant const
#endif
#define METAL_FUNC inline
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define M_PI_F 3.14159265358979323846f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LN2_F 0.693147180559945309417f
#define __METAL_VERSION__ 320

// ---- what MLX puts before every custom kernel, as far as it is used
using namespace metal;
typedef half float16_t;
typedef bfloat bfloat16_t;
METAL_FUNC int64_t elem_to_loc(uint elem, constant int* shape,
                               constant int64_t* strides, int ndim) {
  int64_t at = 0;
  for (int i = ndim - 1; i >= 0; i--) {
    at += (elem % shape[i]) * strides[i];
    elem /= shape[i];
  }
  return at;
}
