/* What generated C takes of math.h, where there is no C library. */
#pragma once

#define isfinite(x) __builtin_isfinite(x)
#define fabs(x) __builtin_fabs(x)

double fmax(double a, double b);
double ldexp(double x, int exponent);
double nearbyint(double x);
float fmaxf(float a, float b);
float fminf(float a, float b);
float nearbyintf(float x);
long long llrint(double x);
long long llround(double x);
