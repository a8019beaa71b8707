// Clamped SwiGLU as in openai/gpt-oss: the gate from above, the linear part on both sides, then (linear + 1).
inline float swiglu(float gate, float up, float limit) {
  gate = min(gate, limit);
  up = clamp(up, -limit, limit);
  return gate / (1.0f + exp(-1.702f * gate)) * (up + 1.0f);
}
