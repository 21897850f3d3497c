package subnet_test

import (
	"testing"

	"flanneld/subnet"
)

// sysfs has no new folders, whoever asks.
func TestAStateFolderThatCannotBeWrittenIsNoEnd(t *testing.T) {
	s, err := subnet.OpenState("/sys/flannel-of-a-test", "/run/flannel/subnet.env")
	if err != nil || s.Unwritable() == nil {
		t.Fatalf("got %v, %v, want a state that says that it cannot be written", s, err)
	}
	st, err := s.Load()
	if err != nil || st.Identity == "" {
		t.Errorf("got %q, %v, want an identity", st.Identity, err)
	}
	if err := s.Save(st); err == nil {
		t.Error("saved")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
