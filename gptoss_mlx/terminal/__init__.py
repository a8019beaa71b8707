"""What people see and type at a terminal. It knows neither ids nor the engine."""
