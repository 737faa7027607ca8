"""Routes of all kinds: converters, a regular expression, and routes that are included below a prefix."""

from django.urls import include, path, re_path

from shop import views

urlpatterns = [
    path("order/<int:number>", views.order),
    path("fails/<int:number>", views.fails),
    path("fires/<int:times>", views.fires),
    path("slow/<int:number>", views.slow),
    path("stream/<int:number>", views.stream),
    path("shops/<slug:shop>/", include([re_path(r"^item-(?P<number>[0-9]+)$", views.item)])),
]
