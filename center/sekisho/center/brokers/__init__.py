"""Configurations of the brokers the centre runs on, written from one model: who may write and read which topic.

Nothing in the delivery depends on a broker's memory. What does depend on the broker is that a box stays in its
own topics; each module says in its own broker's words what `model` says once, and the same tests run against all.
"""
