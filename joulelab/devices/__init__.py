"""Devices under test and the engines that run models on them."""
