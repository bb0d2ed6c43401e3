package leader

import "testing"

func TestLeastLoaded(t *testing.T) {
	for _, c := range []struct {
		loads []int
		want  int
	}{
		{[]int{3}, 0}, {[]int{0, 0, 0}, 0}, {[]int{2, 1, 1}, 1}, {[]int{5, 4, 0}, 2},
	} {
		if got := leastLoaded(c.loads); got != c.want {
			t.Errorf("%v: %d, want %d", c.loads, got, c.want)
		}
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct{ n, waiting, want int }{{10, 1, 10}, {10, 3, 4}, {1, 5, 1}, {10, 0, 10}, {0, 5, 0}} {
		if got := share(c.n, c.waiting); got != c.want {
			t.Errorf("%d for %d: %d, want %d", c.n, c.waiting, got, c.want)
		}
	}
}
