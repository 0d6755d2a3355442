package api

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/validation"
)

// Who serves a group's version: this server, or one behind a service. Package apiserver/aggregate keeps those of this server and watches the others.
func registrationRows() []*Resource {
	return []*Resource{of[apiregistrationv1.APIService, apiregistrationv1.APIServiceList](Resource{
		Group: apiregistrationv1.GroupName, Version: "v1", Kind: "APIService", Plural: "apiservices", Categories: []string{"api-extensions"},
		Key: "apiregistration.k8s.io/apiservices", Cold: true, Status: true, StatusAlone: true,
		ValidateName:   pathSegment,
		Default:        func(o Object) { apiregistrationv1.SetObjectDefaults_APIService(o.(*apiregistrationv1.APIService)) },
		PrepareCreate:  prepareAPIService,
		Validate:       validateAPIService,
		ValidateUpdate: validateAPIServices(validation.ValidateAPIServiceUpdate),
		ValidateStatus: validateAPIServices(validation.ValidateAPIServiceStatusUpdate),
		StatusOnCreate: true, // what PrepareCreate leaves of it
		Columns:        columns(text("Service", servedBy), text("Available", availability)),
	})}
}

// prepareAPIService gives an APIService the only status it can begin with: what this server serves itself is there.
func prepareAPIService(o Object) {
	s := o.(*apiregistrationv1.APIService)
	s.Status = apiregistrationv1.APIServiceStatus{}
	if s.Spec.Service == nil {
		s.Status.Conditions = []apiregistrationv1.APIServiceCondition{{
			Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, LastTransitionTime: metav1.Now(), Reason: "Local",
			Message: "Local APIServices are always available",
		}}
	}
}

func internalAPIService(o Object) *apiregistration.APIService {
	out := &apiregistration.APIService{}
	// The types differ in tags alone.
	_ = apiregistrationv1.Convert_v1_APIService_To_apiregistration_APIService(o.(*apiregistrationv1.APIService).DeepCopy(), out, nil)
	return out
}

func validateAPIService(o Object) field.ErrorList {
	return validation.ValidateAPIService(context.Background(), internalAPIService(o))
}

func validateAPIServices(f func(ctx context.Context, obj, old *apiregistration.APIService) field.ErrorList) func(obj, old Object) field.ErrorList {
	return func(obj, old Object) field.ErrorList {
		return f(context.Background(), internalAPIService(obj), internalAPIService(old))
	}
}

func servedBy(o *apiregistrationv1.APIService) string {
	if s := o.Spec.Service; s != nil {
		return s.Namespace + "/" + s.Name
	}
	return "Local"
}

func availability(o *apiregistrationv1.APIService) string {
	list := o.Status.Conditions
	at := slices.IndexFunc(list, func(c apiregistrationv1.APIServiceCondition) bool { return c.Type == apiregistrationv1.Available })
	switch {
	case at < 0:
		return "Unknown"
	case list[at].Status != apiregistrationv1.ConditionTrue:
		return fmt.Sprintf("%s (%s)", list[at].Status, list[at].Reason)
	}
	return string(list[at].Status)
}
