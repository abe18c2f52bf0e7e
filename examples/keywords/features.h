/* What the network hears of a frame of sound; features.py says how it is computed. */
#ifndef FEATURES_H
#define FEATURES_H

#include <stdint.h>

/* Samples of a frame, samples from one frame to the next, and features. */
enum { WINDOW = 512, HOP = 320, BANDS = 20 };

/* Of 16-bit samples at 16 kHz. Not for two threads at once: 4 KB of working memory are static. */
void features(const int16_t samples[WINDOW], int8_t out[BANDS]);

#endif
