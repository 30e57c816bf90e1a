"""A phone: the Pixel 6a of edge-llm-bench, its cell replaced by a supply with a meter."""

from __future__ import annotations

from dataclasses import replace

from joulelab.quantities import Channel, Origin, Scope, SensorModel
from joulelab.simulation.profile import Meter, Noise, Power, Profile, Thermal, Timing
from joulelab.simulation.profiles import ina228

VOLTS = 3.85

PHONE = Profile(
    name="phone",
    device="Pixel 6a",
    timing=Timing(
        request_launch_s=5e-3,  # assumed
        pass_launch_s=1e-3,  # assumed
        flops=37.4e9,  # prefill, four medians between 36.3 and 38.3
        weight_bandwidth=27.1e9,  # decode, what arithmetic leaves of four medians: between 22.1 and 30.6
        kv_bandwidth=6.6e9,  # growth up to 1,024 tokens, geometric mean of 1.6 (1.5B) and the weights' (3B: no less)
        kv_bandwidth_long=4.5e9,  # growth above, geometric mean of 3.8 (3B) and 5.4 (1.5B)
        switch_tokens=1100,
        tile=4,  # assumed: rows of a CPU micro-kernel
        ubatch=512,  # llama.cpp's default
        source="edge-llm-bench (KrisDcosta, CC BY 4.0): llama.cpp on 4 threads, q8_0 of Llama-3.2-3B and "
        "Qwen2.5-1.5B by context",
    ),
    power=Power(
        idle_w=0.149,  # 10 mA suspended and 28.6 mA awake, at 3.85 V
        active_w=2.65,  # two X1 at 2.80 GHz, two A76 at 2.25 GHz and their clusters: 688 mA at 3.85 V
        memory_w=1.08,  # 5 pJ a streamed bit (assumed)
        compute_w=0.0,  # the cores draw the same whether they compute or wait for memory
        ramp_s=46e-3,  # half-life of 32 ms of the load that drives the frequency governor
        onset_rel=0.023,  # as the edge GPU's
        onset_s=0.2,
        background_rel=0.05,  # assumed
        leakage_w=0.1,  # assumed
        leakage_per_k=0.027,  # as the edge GPU's
        source="power_profile.xml of the Pixel 6a (Google's bluejay, in "
        "LineageOS/android_device_google_bluejay); Linux documentation of schedutil (PELT); memory "
        "energy, background and leakage assumed",
    ),
    thermal=Thermal(
        ambient_c=25.0,
        resistance=10.0,
        time_constant_s=120.0,
        source="assumed: a body without a fan, 5 K/W from skin to air and as much from chip to skin",
    ),
    noise=Noise(
        prefill_cv=0.021,
        decode_cv=0.070,
        power_cv=0.02,  # assumed
        stall_probability=0.05,  # assumed
        stall_mean_s=20e-3,  # assumed
        source="edge-llm-bench, q8_0: scatter from one trial to the next, median over its cells; power and "
        "stalls assumed",
    ),
    meter=Meter(
        channel=Channel(
            "power",
            "W",
            scope=Scope.INPUT,
            origin=Origin.SIMULATED,
            sensor=replace(
                ina228.SENSOR,
                period_s=20e-3,  # phases last seconds here
                window_s=17.3e-3,  # 16 conversions each, 540 us
                noise_u=ina228.noise_u(VOLTS, 16),
                offset_u=ina228.offset_u(VOLTS),
            ),
        ),
        interval_ns=20_000_000,
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
                period_s=0.1758,
                window_s=0.1758,
                delay_s=50e-3,
                delay_u_s=20e-3,
                resolution=0.6e-3,  # 1.5625 uV on 10 mOhm at 3.85 V
                noise_u=0.6e-3,
                gain_u_rel=0.01 / 3**0.5,
                offset_u=0.6e-3 / 3**0.5,
            ),
        ),
        interval_ns=250_000_000,
        latency_ns=1_000_000,
        clock_u_rel=0.01 / 3**0.5,
        source="Maxim MAX17047: current every 175.8 ms, 1.5625 uV a bit; polled as in Perfetto's examples; "
        "gain, offset, noise, clock, delay and latency assumed",
    ),
)
