"""What was measured, looked up."""
import statistics


class Results:
    """Of one run, with those of the others that were made to see whether they agree."""

    def __init__(self, data, *others):
        self.data = data
        self.runs = [self, *map(Results, others)]
        self.scenarios = {scenario["name"]: scenario for scenario in data["scenarios"]}

    def group(self, name):
        return [scenario for scenario in self.data["scenarios"] if scenario["group"] == name]

    def entry(self, scenario, name):
        """None if it was not measured."""
        entries = self.scenarios.get(scenario, {"entries": []})["entries"]
        return next((entry for entry in entries if entry["name"] == name), None)

    def seconds(self, scenario, name):
        entry = self.entry(scenario, name)
        return statistics.median(entry["seconds"]) if entry else None

    def ratio(self, scenario, one, other, of="seconds"):
        """The median over the rounds of one's time by the other's in the same round."""
        a, b = self.entry(scenario, one), self.entry(scenario, other)
        return statistics.median(x / y for x, y in zip(a[of], b[of])) if a and b else None

    def difference(self, scenario, one, other):
        a, b = self.entry(scenario, one), self.entry(scenario, other)
        return statistics.median(x - y for x, y in zip(a["seconds"], b["seconds"])) if a and b else None

    def without(self, scenario, one, part, other):
        """As `ratio`, with one's time less that of a part of it."""
        found = [self.entry(scenario, name) for name in (one, part, other)]
        rounds = zip(*(entry["seconds"] for entry in found)) if all(found) else ()
        return statistics.median([(x - y) / z for x, y, z in rounds]) if all(found) else None

    def roof(self):
        """What the machine does a second at best: floating-point operations, bytes to and from memory, and
        to and from a cache. None if that was not measured."""
        peak, copy, cached = (self.seconds("machine", what) for what in ("peak", "copy", "copy in cache"))
        return (2 * 2048**3 / peak, 2 * 256 * 2**20 / copy, 2 * 8 * 2**20 / cached) if cached else None
