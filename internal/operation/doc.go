// Package operation runs the long jobs of a cluster. An operation lies in the
// catalog, as a state machine whose steps are compared and set; the leader of the
// catalog runs all of them (Runner). A step says what is wanted, waits until it is
// so, and then names the next one; nothing of it is kept anywhere else. So when the
// runner dies, the next leader of the catalog goes on where it stood, and two that
// run at once do no harm: everything that a step does finds out by itself that it
// was done before, or is refused to all but one.
package operation
