/* SPDX-License-Identifier: MIT */
#include "tests/sim/sim.h"

static uint64_t scramble(uint64_t value)
{
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

uint64_t sim_random(void)
{
    sim.random += UINT64_C(0x9e3779b97f4a7c15);
    return scramble(sim.random);
}

uint32_t sim_below(uint32_t count)
{
    return (uint32_t)((sim_random() >> 32) * count >> 32);
}

bool sim_chance(uint32_t per_mille)
{
    return per_mille > 0 && sim_below(1000) < per_mille;
}

uint64_t sim_between(uint64_t least, uint64_t most)
{
    return least + sim_random() % (most - least + 1);
}

void sim_mix(uint64_t value)
{
    sim.hash = scramble(sim.hash ^ value);
}
