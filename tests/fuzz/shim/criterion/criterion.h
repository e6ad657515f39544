/* SPDX-License-Identifier: MIT */
/* What the fixtures of unit tests use of Criterion, for fuzz targets that link those fixtures: a
 * failed assertion is a finding, and ends the process where libFuzzer sees it. */
#pragma once

#include "tests/fuzz/fuzz.h"

#define cr_assert(...) FUZZ_CHECK(__VA_ARGS__)
#define cr_expect(...) FUZZ_CHECK(__VA_ARGS__)
