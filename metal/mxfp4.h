// MXFP4 (OCP Microscaling Formats 1.0): blocks of 32 e2m1 numbers, 16 bytes with the low nibble first, that share
// a power of two, 2^(scale - 127).

// Nibbles i and i + 4 of a word lie 16 bits apart. Moved to bits 9..11 and 15 of a half, sign, exponent and
// mantissa of e2m1 are those of a half that is 2^14 times smaller.
template <int I>
inline float2 mxfp4_pair(uint word) {
  uint magnitude = I < 3 ? word << (I < 3 ? 9 - 4 * I : 0) : word >> 3;
  uint sign = word << (12 - 4 * I);
  return float2(as_type<half2>((magnitude & 0x0E000E00u) | (sign & 0x80008000u)));
}

// The factor that undoes those 2^14, with the block's scale: 2^(scale - 127 + 14). A scale of 0 counts as nothing, one
// of 241 and more (weights of 2^114, which no checkpoint has) as infinity.
inline float mxfp4_scale(uint8_t scale) {
  return as_type<float>(uint(scale) << 23) * 16384.0f;
}

// The eight weights of a word, not yet scaled, times x[0..7].
inline float mxfp4_dot(uint word, const thread float* x) {
  float2 a = mxfp4_pair<0>(word), b = mxfp4_pair<1>(word), c = mxfp4_pair<2>(word), d = mxfp4_pair<3>(word);
  float low = fma(a.x, x[0], fma(b.x, x[1], fma(c.x, x[2], d.x * x[3])));
  return low + fma(a.y, x[4], fma(b.y, x[5], fma(c.y, x[6], d.y * x[7])));
}

// The rows of a matrix (..., K): blocks (..., K / 32), scales (..., K / 32).
template <int K>
struct Mxfp4 {
  static constexpr constant int width = 32;  // weights in the 16 bytes that a lane reads at once
  const device uint4* blocks;
  const device uint8_t* scales;

  Mxfp4(const device uint32_t* words, const device uint8_t* s, uint first_row)
      : blocks((const device uint4*)words + first_row * (K / 32)), scales(s + first_row * (K / 32)) {}

  // The 32 weights of block `run` of a row, times x.
  float dot(uint row, uint run, const thread float* x, float) const thread {
    uint at = row * (K / 32) + run;
    uint4 w = blocks[at];
    float sum = mxfp4_dot(w.x, x) + mxfp4_dot(w.y, x + 8) + mxfp4_dot(w.z, x + 16) + mxfp4_dot(w.w, x + 24);
    return sum * mxfp4_scale(scales[at]);
  }
};
