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

// share is how many of n messages one of waiting receivers with room for room
// gets: an equal part, so that the first does not take all.
func share(n, waiting, room int) int {
	return min(room, (n+waiting-1)/waiting)
}
