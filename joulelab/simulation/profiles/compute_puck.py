"""A compute puck for extended reality, of the Magic Leap 2's class, its cell replaced by a supply with a meter."""

from __future__ import annotations

from dataclasses import replace

from joulelab.quantities import Channel, Kind, Origin, Scope, SensorModel
from joulelab.simulation.profile import Meter, Noise, Power, Profile, Thermal, Timing
from joulelab.simulation.profiles import ina228

COMPUTE_PUCK = Profile(
    name="compute-puck",
    device="compute puck of the Magic Leap 2's class",
    timing=Timing(
        request_launch_s=5e-3,  # assumed
        pass_launch_s=1e-3,  # assumed: one submission of some 500 dispatches
        flops=1.89e12,  # 144.3 tokens/s of prefill
        weight_bandwidth=67.4e9,  # 17.5 tokens/s of decode: 77 % of 88 GB/s
        kv_bandwidth=47e9,  # assumed: 0.7 of the other kernel's
        kv_bandwidth_long=67.4e9,  # assumed: as the weights'
        switch_tokens=1024,  # assumed
        tile=64,  # assumed: the middle one of llama.cpp's Vulkan tiles (32, 64, 128)
        ubatch=512,  # llama.cpp's default
        source="llama.cpp discussion 10879: Llama 2 7B q4_0 on Van Gogh (4 Zen 2 cores, RDNA 2, LPDDR5), "
        "the sibling of the Magic Leap 2's Mero; LoXR (arXiv 2502.15761) ran the Magic Leap 2, but "
        "its rates could not be read",
    ),
    power=Power(
        idle_w=4.0,  # lower end of what Valve states for Van Gogh
        active_w=2.8,  # a quarter of decode's 11 W, as the edge GPU's
        memory_w=8.6,  # decode, its memory 95 % busy, at the upper end: 15 W
        compute_w=6.7,  # prefill at 0.90 of decode, as an iGPU with Llama 3.2 1B (12.7 and 14.1 W): 13.5 W
        ramp_s=46e-3,  # as the edge GPU's
        onset_rel=0.023,  # as the edge GPU's
        onset_s=0.2,
        background_rel=0.02,  # assumed
        leakage_w=1.0,  # assumed
        leakage_per_k=0.027,  # as the edge GPU's
        source="Valve on the Steam Deck's chip: 4 to 15 W (Ars Technica, 2021-11-15); FastFlowLM's "
        "benchmarks of Llama 3.2 1B on a Ryzen AI; ramp and onset: GPU_Power_Benchmark recording; "
        "background and leakage assumed",
    ),
    thermal=Thermal(
        ambient_c=25.0,
        resistance=3.0,
        time_constant_s=60.0,
        source="assumed: a worn pack whose fan holds 15 W at 70 degC",
    ),
    noise=Noise(
        prefill_cv=0.019,
        decode_cv=0.0086,
        power_cv=0.01,  # assumed
        stall_probability=0.05,  # assumed
        stall_mean_s=8e-3,  # assumed
        source="llama.cpp discussion 10879: 144.31 +- 2.74 and 17.52 +- 0.15 tokens/s; power and stalls assumed",
    ),
    meter=Meter(
        channel=Channel(
            "energy",
            "J",
            kind=Kind.COUNTER,
            scope=Scope.INPUT,
            origin=Origin.SIMULATED,
            sensor=replace(
                ina228.SENSOR, window_s=0.0, resolution=16 * ina228.POWER_LSB_W, wrap=2**40 * 16 * ina228.POWER_LSB_W
            ),
        ),
        interval_ns=10_000_000,
        latency_ns=ina228.LATENCY_NS,
        clock_u_rel=ina228.CLOCK_U_REL,
        source=ina228.SOURCE,
    ),
    gauge=Meter(
        channel=Channel(
            "battery",
            "W",
            scope=Scope.BATTERY,
            origin=Origin.SIMULATED,
            sensor=SensorModel(
                period_s=1.0,
                window_s=1.0,
                delay_s=0.1,
                delay_u_s=0.03,
                resolution=3.8e-3,  # 1 mA at 3.83 V
                noise_u=2.9e-3,  # 3.74 uV on 5 mOhm at 3.83 V
                gain_u_rel=0.01 / 3**0.5,
                offset_u=3.8e-3 / 3**0.5,
            ),
        ),
        interval_ns=200_000_000,
        latency_ns=1_000_000,
        clock_u_rel=0.01 / 3**0.5,
        source="TI BQ27Z561 (SLUUC54C): 3.74 uV a bit; 3.83 V: iFixit's teardown of the Magic Leap One; "
        "whole mA, update every second, shunt, gain, offset, clock, delay and latency assumed",
    ),
)
