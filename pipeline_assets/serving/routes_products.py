"""The routes that say what is known of products: what the live bundle holds of them, nothing else."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Annotated, Any

import pydantic
from fastapi import APIRouter, Depends, Response

from pipeline_assets.serving.access import requires
from pipeline_assets.serving.answers import Live
from pipeline_assets.serving.api_models import ERRORS, Body, Id
from pipeline_assets.serving.http_errors import RequestError, shown
from pipeline_assets.serving.routes_recommendations import check_id, loaded
from pipeline_assets.serving.service import Service


class ProductsBody(Body):
    """Products that are asked for."""

    product_ids: Annotated[tuple[Id, ...], pydantic.Field(min_length=1, max_length=1_000)]


class Product(pydantic.BaseModel):
    """One product of the catalogue that is served from. `features` are what the model knows of it; null is missing."""

    product_id: str
    department: str | None
    category: str | None
    type: str | None
    brand: str | None
    features: dict[str, float | None]


class Products(pydantic.BaseModel):
    """Products in the order of the request, and ids that the catalogue does not have: they can not be recommended."""

    as_of: str
    model_version: str
    products: list[Product]
    unknown: list[str]


def router(service: Service) -> APIRouter:
    """Products of the live bundle."""
    routes = APIRouter(dependencies=[Depends(requires("read"))], default_response_class=Response, responses=ERRORS)

    @routes.get("/v1/products/{product_id}", responses={200: {"model": Product}})
    async def product(product_id: str) -> Response:
        """What is known of one product."""
        check_id("path.product_id", product_id)
        live = loaded(service, None)
        if product_id not in live.bundle.rows:
            raise RequestError(
                HTTPStatus.NOT_FOUND,
                "path.product_id",
                found=shown(product_id),
                wanted=f"a product of the catalogue of {live.as_of}",
                fix="none: what is not in the catalogue is not recommended",
            )
        return Response(json.dumps(_known(live, product_id)), media_type="application/json")

    @routes.post("/v1/products", responses={200: {"model": Products}})
    async def products(body: ProductsBody) -> Response:
        """What is known of up to 1,000 products."""
        live = loaded(service, None)
        rows = live.bundle.rows
        answer = {
            "as_of": live.as_of,
            "model_version": live.bundle.manifest.model_version,
            "products": [_known(live, product) for product in body.product_ids if product in rows],
            "unknown": [product for product in body.product_ids if product not in rows],
        }
        return Response(json.dumps(answer), media_type="application/json")

    return routes


def _known(live: Live, product: str) -> dict[str, Any]:
    bundle, row = live.bundle, live.bundle.rows[product]
    values = zip(bundle.features.product, bundle.product_matrix[row].tolist(), strict=True)
    return {
        "product_id": product,
        **{name: column[row] for name, column in bundle.attributes.items()},
        "features": {name: value if math.isfinite(value) else None for name, value in values},
    }
