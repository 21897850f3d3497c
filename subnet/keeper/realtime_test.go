package keeper_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"flanneld/need"
	"flanneld/subnet/keeper"
	"flanneld/subnet/subnettest"
)

// cpuTime returns what this process has used of the processor.
func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// In a bubble of fake time the clock stands still while code runs. What compares two readings of it must also be right
// where it does not.
func TestInRealTimeAClaimIsRefusedAtOnceAndWaitingCostsNothing(t *testing.T) {
	s := subnettest.NewServer()
	s.SetConfig([]byte(netConfig))
	owner := newHost(t, s, 1).start()
	until := func(what string, f func() bool) {
		t.Helper()
		need.Until(t, what, 10*time.Second, f)
	}
	until("the owner holds a subnet", func() bool { return owner.manager.Status().Held })
	second := newHost(t, s, 2)
	second.address = owner.address
	second.start()
	defer second.quit()
	until("the address is refused",
		func() bool { return strings.Contains(second.manager.Status().Waiting, "running host host1") })
	clone := newHost(t, s, 3)
	clone.id = owner.id
	clone.start()
	if err := <-clone.ended; !errors.Is(err, keeper.ErrCloned) {
		t.Errorf("clone: %v", err)
	}
	if err := owner.quit(); err != nil { // so that claims stay open
		t.Error(err)
	}
	heir := newHost(t, s, 4)
	heir.address = owner.address
	heir.start()
	defer heir.quit()

	until("the heir asks", func() bool { return strings.Contains(heir.manager.Status().Waiting, "still runs") })
	before := cpuTime(t)
	time.Sleep(time.Second)
	if used := cpuTime(t) - before; used > 200*time.Millisecond {
		t.Errorf("waiting for a second used %s of the processor", used)
	}
	if e, ok := recordOf(s, owner.subnet()); !ok || e.Identity != owner.id {
		t.Errorf("record %+v", e)
	}
}
