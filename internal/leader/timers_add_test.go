package leader

import "testing"

// A timer that is set while others are being woken is neither forgotten nor
// passed over, also when its entry was stamped before theirs were due.
func TestTimerThatIsSetDuringAWake(t *testing.T) {
	x := timers{next: 100, after: 90, waking: true}
	x.add(80)
	x.add(300)
	if x.added != 80 || x.after != 79 || x.next != 100 {
		t.Fatalf("%+v", x)
	}
	y := timers{}
	y.add(50)
	y.add(70)
	y.add(20)
	if y.next != 20 {
		t.Fatalf("%+v", y)
	}
}
