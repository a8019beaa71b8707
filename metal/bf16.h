// The rows of a matrix (..., K) in bfloat16, the upper half of a float32.
template <int K>
struct Bf16 {
  static constexpr constant int width = 8;  // weights in the 16 bytes that a lane reads at once
  const device uint4* words;

  Bf16(const device bfloat16_t* w) : words((const device uint4*)w) {}

  // The weights of run `run` of a row, times x.
  float dot(uint row, uint run, const thread float* x, float) const thread {
    uint4 w = words[row * (K / 8) + run];
    return word_dot(w.x, x) + word_dot(w.y, x + 2) + word_dot(w.z, x + 4) + word_dot(w.w, x + 6);
  }

  static float word_dot(uint word, const thread float* x) {
    return fma(as_type<float>(word << 16), x[0], as_type<float>(word & 0xFFFF0000u) * x[1]);
  }
};
