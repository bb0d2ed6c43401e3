package leader

import (
	"errors"
	"slices"
	"testing"
)

// A step of the plan that is refused at each second is told of once, and again
// when it was not refused in between, or is for another reason.
func TestRefusalsAreToldOnce(t *testing.T) {
	var r refusals
	var told []int
	for i, why := range []string{"full", "full", "full", "", "", "full", "full", "gone", "gone"} {
		r.next()
		if why == "" {
			continue
		}
		for range 2 { // of two commands
			if r.news(errors.New(why)) {
				told = append(told, i)
			}
		}
	}
	if want := []int{0, 5, 7}; !slices.Equal(told, want) {
		t.Errorf("told at %v, want %v", told, want)
	}
}
