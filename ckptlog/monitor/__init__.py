"""Answers about how a store is doing, made from its history."""
