/* SPDX-License-Identifier: MIT */
/* Tells the story in a process of its own, under one fault, and judges what the requester sees. */
#pragma once

#include "tests/faults/stage.h"

/* In the child; its exit code. What it found is in stage->outcome. */
int requester_live(struct stage *stage, const struct stage_fault *fault);
