package subnet_test

import (
	"testing"

	"flanneld/subnet/subnettest"
)

func TestPairsOfSubnets(t *testing.T) {
	subnettest.Pairs(t, subnettest.NewServer().Client("host"))
}

func TestTheStoreInMemoryKeepsTheContract(t *testing.T) {
	subnettest.Contract(t, func(*testing.T) subnettest.Subject {
		s := subnettest.NewServer()
		return subnettest.Subject{
			Store: s.Client("a"), SetConfig: s.SetConfig, Remove: s.Remove, Compact: s.Compact,
			PutBad: func(key string) { s.PutBad(key, "rubbish") },
		}
	})
}
