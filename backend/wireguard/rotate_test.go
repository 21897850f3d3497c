package wireguard_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"flanneld/backend/wireguard/options"
)

func TestAKeyIsPublishedBeforeItIsUsed(t *testing.T) {
	files := options.KeyFiles{filepath.Join(t.TempDir(), "wgkey"), filepath.Join(t.TempDir(), "state.wgkey")}
	r := newRig(t, config4, files...)
	r.set(selfAlone, lease("10.5.2.0/24", "192.0.2.2", 2), lease("10.5.3.0/24", "192.0.2.3", 3))
	before := r.b.Attrs(selfAlone[0].Subnet)
	r.tunnels.Greeted = nil
	device := func() string {
		d, err := r.tunnels.Open["flannel-wg"].Device()
		if err != nil {
			t.Fatal(err)
		}
		return d.PublicKey.String()
	}
	used, published := device(), ""
	key, err := r.b.Rotate(t.Context(), func() {
		published = r.b.Attrs(selfAlone[0].Subnet).BackendData
		if device() != used {
			t.Error("the key is used before peers can know it")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if published == before.BackendData || !strings.Contains(published, key) || device() != key || key == used {
		t.Errorf("published %s, before %s; the device has %s, before %s", published, before.BackendData, device(), used)
	}
	if len(r.tunnels.Greeted) != 2 {
		t.Errorf("handshakes with %v, want both peers", r.tunnels.Greeted)
	}
	r.set(selfAlone, lease("10.5.2.0/24", "192.0.2.2", 2))
	if device() != key {
		t.Errorf("a pass sets the key back")
	}
	for _, file := range files {
		saved, err := os.ReadFile(file)
		private, bad := wgtypes.ParseKey(strings.TrimSpace(string(saved)))
		if err != nil || bad != nil || private.PublicKey().String() != key {
			t.Errorf("%s does not hold the new key: %v", filepath.Base(file), err)
		}
	}
}

func TestAKeyThatCannotBeSavedIsNotUsed(t *testing.T) {
	r := newRig(t, config4, "/proc/none/wgkey")
	r.set(selfAlone, lease("10.5.2.0/24", "192.0.2.2", 2))
	before := r.b.Attrs(selfAlone[0].Subnet)
	if _, err := r.b.Rotate(t.Context(), func() { t.Error("it is published") }); err == nil {
		t.Error("no error")
	}
	if after := r.b.Attrs(selfAlone[0].Subnet); after != before {
		t.Errorf("published %s, before %s", after.BackendData, before.BackendData)
	}
}
