package devicelock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flanneld/devicelock"
)

func TestADeviceIsForOneDaemon(t *testing.T) {
	folder := t.TempDir()
	first, second := devicelock.New(folder, "pid 7, network /red"), devicelock.New(folder, "pid 8, network /blue")
	if err := first.Lock("flannel0"); err != nil {
		t.Fatal(err)
	}
	taken := (*devicelock.TakenError)(nil)
	if err := second.Lock("flannel0"); !errors.As(err, &taken) ||
		!strings.Contains(err.Error(), "flannel0 is in use by another flanneld (pid 7, network /red)") {
		t.Errorf("the second daemon gets %v", err)
	}
	if name, err := second.First("flannel0", "flannel1"); err != nil || name != "flannel1" {
		t.Errorf("the second daemon gets %q, %v", name, err)
	}
	if _, err := first.First("flannel0", "flannel1"); !errors.As(err, &taken) ||
		!strings.Contains(err.Error(), "network /blue") {
		t.Errorf("none is left: %v", err)
	}
	first.Release()
	if err := second.Lock("flannel0"); err != nil {
		t.Errorf("the device that the first daemon has given back: %v", err)
	}
	if err := devicelock.New("/proc/none", "").Lock("flannel0"); err == nil || errors.As(err, &taken) {
		t.Errorf("where no lock can be made: %v", err)
	}
}

func TestADaemonWaitsForADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := t.TempDir()
		first, second := devicelock.New(folder, "pid 7"), devicelock.New(folder, "pid 8")
		devices := [][]string{{"flannel0"}}
		if _, err := first.All(devices, nil); err != nil {
			t.Fatal(err)
		}
		released := make(chan struct{})
		time.AfterFunc(time.Minute, func() {
			first.Release()
			close(released)
		})
		start, reasons := time.Now(), 0
		names, err := second.Wait(t.Context(), devices, nil, func(error) { reasons++ })
		if err != nil || len(names) != 1 || names[0] != "flannel0" {
			t.Errorf("got %q, %v", names, err)
		}
		if took := time.Since(start); took < time.Minute || reasons != 1 {
			t.Errorf("after %v, %d reasons, want one", took, reasons)
		}
		<-released
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if names, err := first.Wait(ctx, devices, nil, func(error) {}); !errors.Is(err, context.Canceled) || names != nil {
			t.Errorf("the daemon ends: %q, %v", names, err)
		}
	})
}
