package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/emicklei/go-restful/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

// api answers the requests of those who may do what they ask for.
type api struct {
	http.Handler
	codecs serializer.CodecFactory
	stores []*registry.Store
}

// newAPI opens the storage of nodes and pods in etcd.
func newAPI(etcd string) (*api, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	a := &api{codecs: serializer.NewCodecFactory(scheme, serializer.WithStreamingCollectionEncodingToJSON(),
		serializer.WithStreamingCollectionEncodingToProtobuf())}
	nodes, err := a.store(etcd, nodes(scheme))
	if err != nil {
		return nil, err
	}
	pods, err := a.store(etcd, pods(scheme))
	if err != nil {
		return nil, err
	}
	ofStatus := *nodes
	ofStatus.UpdateStrategy = statusOfNode{strategy{ObjectTyper: scheme}}
	container := restful.NewContainer()
	container.Router(restful.CurlyRouter{})
	group := &endpoints.APIGroupVersion{
		Storage: map[string]rest.Storage{"nodes": nodes, "nodes/status": &status{&ofStatus}, "pods": pods},
		Root:    "/api", GroupVersion: corev1.SchemeGroupVersion, OptionsExternalVersion: &corev1.SchemeGroupVersion,
		Serializer: a.codecs, ParameterCodec: runtime.NewParameterCodec(scheme),
		Typer: scheme, Creater: scheme, Convertor: scheme, ConvertabilityChecker: scheme, Defaulter: scheme,
		UnsafeConvertor: runtime.UnsafeObjectConvertor(scheme), Namer: runtime.Namer(meta.NewAccessor()),
		TypeConverter:              managedfields.NewDeducedTypeConverter(),
		EquivalentResourceRegistry: runtime.NewEquivalentResourceRegistry(),
		MinRequestTimeout:          30 * time.Minute, // of watches, as kube-apiserver has it
	}
	if _, _, err := group.InstallREST(container); err != nil {
		return nil, fmt.Errorf("install handlers: %w", err)
	}
	a.Handler = container
	return a, nil
}

// newScheme knows core/v1. Nodes and pods are their own internal form, so that nothing is converted.
func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := corev1.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("register the types of core/v1: %w", err)
	}
	internal := schema.GroupVersion{Version: runtime.APIVersionInternal}
	s.AddKnownTypes(internal, &corev1.Node{}, &corev1.NodeList{}, &corev1.Pod{}, &corev1.PodList{})
	return s, nil
}

// store completes a storage with the library's cache and etcd.
func (a *api) store(etcd string, s *registry.Store) (*registry.Store, error) {
	info, ok := runtime.SerializerInfoForMediaType(a.codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		return nil, fmt.Errorf("no serializer of %s", runtime.ContentTypeProtobuf)
	}
	config := storagebackend.NewDefaultConfig("/registry",
		a.codecs.CodecForVersions(info.Serializer, a.codecs.UniversalDeserializer(), corev1.SchemeGroupVersion,
			schema.GroupVersion{Version: runtime.APIVersionInternal}))
	config.EncodeVersioner = corev1.SchemeGroupVersion
	config.Transport.ServerList = []string{etcd}
	prefix := s.DefaultQualifiedResource.Resource
	if prefix == "nodes" {
		prefix = "minions" // as kube-apiserver has it
	}
	err := s.CompleteWithOptions(&generic.StoreOptions{RESTOptions: generic.RESTOptions{
		StorageConfig: config.ForResource(s.DefaultQualifiedResource), Decorator: registry.StorageWithCacher(),
		ResourcePrefix: prefix, DeleteCollectionWorkers: 1,
	}})
	if err != nil {
		return nil, fmt.Errorf("open the storage of %s: %w", s.DefaultQualifiedResource, err)
	}
	a.stores = append(a.stores, s)
	return s, nil
}

// ready says why requests cannot be answered yet; nil: they can.
func (a *api) ready() error {
	for _, s := range a.stores {
		if err := s.ReadinessCheck(); err != nil {
			return fmt.Errorf("%s: %w", s.DefaultQualifiedResource, err)
		}
	}
	return nil
}

// status is the part of a node that is written under nodes/status.
type status struct{ store *registry.Store }

func (s *status) New() runtime.Object { return s.store.New() }
func (s *status) Destroy()            {} // the storage is that of nodes

func (s *status) Get(ctx context.Context, name string, o *metav1.GetOptions) (runtime.Object, error) {
	return s.store.Get(ctx, name, o)
}

func (s *status) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, o *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return s.store.Update(ctx, name, info, create, update, false, o)
}
