package leader

// Strategies of dispatch are pure functions: whom of those who wait a message
// goes to. They may change at any time, because no replica depends on them.

// leastLoaded picks the receiver whose worker holds the fewest messages; of
// equals, the one that has waited longest. loads are in the order of waiting.
func leastLoaded(loads []int) int {
	best := 0
	for i, l := range loads {
		if l < loads[best] {
			best = i
		}
	}
	return best
}

// share is how many of n messages one of waiting receivers gets: an equal part,
// so that the first does not take all. When each has got its part, one may get
// all that is left.
func share(n, waiting int) int {
	waiting = max(waiting, 1)
	return (n + waiting - 1) / waiting
}

// laden says that a worker has its part of the load, which with one message more
// is 1.25 of the mean, so that even a key that prefers it goes to the next one.
// The load is that of all workers.
func laden(has, load, workers int) bool { return 4*workers*has >= 5*(load+1) }
