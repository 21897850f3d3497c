package main_test

import (
	"slices"
	"testing"

	flannelctl "flanneld/cmd/flannelctl"
)

func TestRulesOfFlannelAreTold(t *testing.T) {
	for line, want := range map[string]bool{
		`-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG`:        true,
		`-A FLANNEL-POSTRTG -d 224.0.0.0/4 -j RETURN`:                                   true,
		`-A FORWARD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT`: true,
		`-A FORWARD -j DOCKER-USER`:                                                     false,
		`-A POSTROUTING -s 10.5.0.0/16 -j MASQUERADE`:                                   false,
	} {
		if got := flannelctl.FlannelRules.MatchString(line); got != want {
			t.Errorf("flannelRules matches %q: %t, want %t", line, got, want)
		}
	}
	got := flannelctl.Words(`-A X -m comment --comment "a \"b\" c" -j Y`)
	want := []string{"-A", "X", "-m", "comment", "--comment", `a "b" c`, "-j", "Y"}
	if !slices.Equal(got, want) {
		t.Errorf("words = %q, want %q", got, want)
	}
}
