"""An edge GPU: the Jetson AGX Orin 64 GB of EdgeReasoning."""

from __future__ import annotations

from dataclasses import replace

from joulelab.quantities import Channel, Origin, Scope, SensorModel
from joulelab.simulation.profile import Meter, Noise, Power, Profile, Thermal, Timing
from joulelab.simulation.profiles import ina228

VOLTS = 20.0

EDGE_GPU = Profile(
    name="edge-gpu",
    device="Jetson AGX Orin 64 GB",
    timing=Timing(
        request_launch_s=9.65e-3,  # time to first token is 14.4 ms above the roofline (1.5B model); less one pass
        pass_launch_s=4.74e-3,  # intercept of time a token against bytes, 8B and 1.5B models
        flops=18.1e12,  # prefill, mean of 16.2 (8B) and 20.0 (1.5B)
        weight_bandwidth=156e9,  # slope of time a token against bytes: 76 % of 204.8 GB/s
        kv_bandwidth=102e9,  # assumed: 0.7 of the other kernel's
        kv_bandwidth_long=146e9,  # growth of time a token with context, mean of 150 (8B) and 142 (1.5B)
        switch_tokens=512,  # vLLM at batch 1: one partition of paged attention, then the partitioned kernel
        tile=128,  # in EdgeReasoning's own prefill model
        ubatch=512,  # llama.cpp's default
        source="EdgeReasoning (arXiv 2511.01866): recorded decode and prefill times of its 8B and 1.5B models",
    ),
    power=Power(
        idle_w=12.4,  # 5.52 W on the GPU rail, carried to the input
        active_w=8.5,  # 5.8 W on the rail: decode with 95 % (8B) and 80 % (1.5B) busy memory draws 27.7 and 25.2 W
        memory_w=25.3,  # 17.3 W on the rail: the same two points
        compute_w=34.9,  # 23.9 W on the rail: long prefills draw 35.2 W once the sensor's lag of 1.35 s is undone
        ramp_s=46e-3,  # loses as much energy as the RTX 3090's two-step rise: 39 % missing for 120 ms
        onset_rel=0.023,  # RTX 3090: 440 W, then 433 W, from 133 W
        onset_s=0.2,
        background_rel=0.01,  # assumed
        leakage_w=1.75,  # assumed: half of the idle GPU rail of 2.4 W, carried to the input
        leakage_per_k=0.027,  # idle GPU rail of 2.40 W at 42.6 degC and 3.18 W at 52.9 degC
        source="EdgeReasoning's rail power; other rails and temperature: public tegrastats lines of AGX "
        "Orin; input: all rails over 0.9 (assumed); ramp and onset: GPU_Power_Benchmark recording; "
        "exponential leakage: arXiv 1404.3381; its level and background assumed",
    ),
    thermal=Thermal(
        ambient_c=34.3,
        resistance=0.67,  # 42 degC with 10.4 W and 72 degC with 51.1 W on all rails
        time_constant_s=100.0,  # assumed: 150 J/K
        source="public tegrastats lines of AGX Orin 64 GB; time constant assumed",
    ),
    noise=Noise(
        prefill_cv=0.014,  # scatter about the roofline (1.5B)
        decode_cv=0.0044,  # scatter about the fit, mean of 0.79 % (8B) and 0.09 % (1.5B)
        power_cv=0.0052,  # scatter of mean decode power about its fit, mean of both models
        stall_probability=0.05,  # assumed
        stall_mean_s=4e-3,  # assumed
        source="EdgeReasoning, which ran each configuration once: scatter about a fit; stalls assumed",
    ),
    meter=Meter(
        channel=Channel(
            "power",
            "W",
            scope=Scope.INPUT,
            origin=Origin.SIMULATED,
            sensor=replace(ina228.SENSOR, noise_u=ina228.noise_u(VOLTS, 1), offset_u=ina228.offset_u(VOLTS)),
        ),
        interval_ns=1_000_000,
        latency_ns=ina228.LATENCY_NS,
        clock_u_rel=ina228.CLOCK_U_REL,
        source=ina228.SOURCE,
    ),
    gauge=Meter(
        channel=Channel(
            "VDD_GPU_SOC",
            "W",
            scope=Scope.RAIL,
            origin=Origin.SIMULATED,
            sensor=SensorModel(
                period_s=0.1,
                window_s=2.2e-3,
                delay_s=10e-3,
                delay_u_s=3e-3,
                resolution=0.4,  # 20 mA at 20 V, as the lines show
                gain_u_rel=0.006,  # 0.25 % max, and 1 % of the shunt (assumed)
                offset_u=0.8 / 3**0.5,  # 80 uV max on 2 mOhm at 20 V
            ),
        ),
        interval_ns=100_000_000,
        latency_ns=500_000,
        clock_u_rel=20e-6,
        share=0.684,  # input = (1.316 rail + 3.87 W) / 0.9, from the lines at idle and under load
        offset_w=-2.94,
        source="TI INA3221 (SBOS576) at its power-on setting behind 2 mOhm, through tegrastats every 100 "
        "ms; shunt tolerance, delay, latency and clock assumed",
    ),
)
